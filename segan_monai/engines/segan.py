# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainer of SegAN: Xue et al. (2018), Section 2.3."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.optim import Optimizer

from segan_monai.engines.accumulation import Part, TwoPasses
from segan_monai.engines.layer_shares import LayerShares
from segan_monai.engines.parameters import clamp_weights, frozen
from segan_monai.engines.phased import PhasedTrainer
from segan_monai.errors import ConfigError


class SegANTrainer(PhasedTrainer):
    """Trainer of segmentor S against critic C with one multi-scale L1 loss.

    With images x, label maps y and the loss l, each iteration takes two steps, as in the paper:

    1. C maximizes ``l(f_C(x * S(x)), f_C(x * y))`` with S fixed; then its weights are clamped.
    2. S minimizes the same loss through the updated C, which is fixed.

    S does not change between the two steps and is evaluated once, or twice with ``accumulation_steps``. In step 2, C is
    frozen and ``f_C(x * y)`` has no gradient. The gradients equal those of the literal algorithm, with about three
    quarters of its arithmetic. Images masked by the prediction and by the label pass through C separately, so that
    batch norm statistics do not mix them.

    Args:
        critic: called with image and label map, returns features for ``loss_function``; see ``SegANCritics``.
        critic_optimizer: optimizer of the critic.
        supervised_loss: additional loss of S, called with logits and label, such as Dice (as in the authors' code for
            skin lesions); None for no such loss. With deep supervision, it is called with the list of logits, as
            MONAI's ``DeepSupervisionLoss`` takes it; the critic sees the first.
        supervised_weight: weight of the supervised loss (paper: 0; the authors' code for skin lesions: 1).
        adversarial_weight: weight of the critic's distance in the loss of S (paper: 1). 0 disables the critic, for the
            baseline of a segmentor trained with its supervised loss only.
        critic_start: first epoch of the adversarial phase (paper: 1). Before it, S minimizes its supervised loss only
            and the critic is not evaluated, because a critic of early predictions teaches S nothing [ours].
        clamp: bound c of the critic's weights (paper: 0.01; the authors' code for skin lesions: 0.05); None for no
            bound, such as for critics with spectral norm.
        clamp_norm: whether to clamp the affine weights of the critic's norm layers too [ours: False, convolutions
            only; a norm layer scaled to c would suppress all later features].
        **settings: arguments of ``PhasedTrainer``; ``compile`` compiles the critic with the loss too. The loader yields
            ``image`` (B, C, H, W) and ``label`` (B, K, H, W), 0 or 1. The network is the segmentor, which maps images
            to logits (B, K, H, W), or in training to a list of them. The loss function is a distance between two sets
            of features, see ``MultiScaleL1Loss``.

    Raises:
        ConfigError: if the segmentor would have no loss in some epoch.
    """

    def __init__(
        self,
        *,
        critic: nn.Module,
        critic_optimizer: Optimizer,
        supervised_loss: Callable | None = None,
        supervised_weight: float = 0.0,
        adversarial_weight: float = 1.0,
        critic_start: int = 1,
        clamp: float | None = 0.01,
        clamp_norm: bool = False,
        **settings: Any,
    ) -> None:
        supervised = supervised_loss is not None and supervised_weight
        if not supervised and (not adversarial_weight or critic_start > 1):
            raise ConfigError(
                f"the segmentor has no loss: adversarial_weight {adversarial_weight}, critic_start {critic_start}, "
                f"supervised_weight {supervised_weight}. Expected a supervised loss, or a critic from epoch 1: set "
                "supervised_weight to 1, or adversarial_weight and critic_start to 1."
            )
        super().__init__(**{"adversaries": {"critic": critic} if adversarial_weight else {}, **settings})
        self.critic = critic
        self.critic_optimizer = critic_optimizer
        self.supervised_loss = supervised_loss
        if isinstance(supervised_loss, nn.Module):
            supervised_loss.to(self.state.device)
        self.supervised_weight = supervised_weight
        self.adversarial_weight = adversarial_weight
        self.critic_start = critic_start
        self.clamp = clamp
        self.distance = self.compiled(self._distance)
        self.distance_to_frozen = self.compiled(self._distance_to_frozen)
        LayerShares().attach(self)
        self.clamped = [p for p in critic.parameters() if clamp_norm or p.ndim > 1]

    @property
    def critic_plays(self) -> bool:
        """Whether the current epoch belongs to the adversarial phase."""
        return bool(self.adversarial_weight) and self.state.epoch >= self.critic_start

    def _iteration(self, engine: SegANTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Take a step of the critic and a step of the segmentor on a batch."""
        batchdata = self.augmented(batchdata)
        image, target = self.prepare(batchdata)
        self.network.train()
        self.critic.train()
        segmented = TwoPasses(self._segment, self.split(image, target), self.network, self.state.device)
        if self.critic_plays:
            self._step_critic(segmented.first())
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

        weights = {"segmentor_l1": self.adversarial_weight, "supervised": self.supervised_weight}
        predictions = []
        with self.minimizing("segmentor", self.optimizer) as step:
            for part, (outputs, prediction) in segmented.second():
                image, target = part.tensors
                terms = {}
                if self.critic_plays:
                    terms["segmentor_l1"] = self.distance_for_segmentor(image, prediction, target)
                if self.supervised_loss is not None and self.supervised_weight:
                    terms["supervised"] = self.supervised_loss(as_float32(outputs), target)
                step.add(part, terms, weights)
                predictions.append(final_logits(outputs).detach())
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

        return self.finish(predictions, step.loss)

    def _segment(self, image: Tensor, target: Tensor) -> tuple[Tensor | list[Tensor], Tensor]:
        """Return the segmentor's outputs for a part of the batch, and its probabilities."""
        with self.autocast():
            outputs = self.inferer(image, self.network)
            return outputs, final_logits(outputs).sigmoid()

    def _step_critic(self, segmented: Iterable[tuple[Part, Any]]) -> None:
        """Take a critic step that maximizes the feature distance of prediction and label; then clamp its weights."""
        with self.minimizing("critic", self.critic_optimizer, self._clamp) as step:
            for part, (_, prediction) in segmented:
                image, target = part.tensors
                with self.autocast():
                    distance = self.distance(image, prediction.detach(), target)
                step.add(part, {"critic_l1": distance}, {"critic_l1": -1.0})

    def _clamp(self) -> None:
        if self.clamp is not None:
            clamp_weights(self.clamped, self.clamp)

    def distance_for_segmentor(self, image: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the distance that the segmentor minimizes; only the prediction has a gradient."""
        with self.autocast(), frozen(self.critic):
            return self.distance_to_frozen(image, prediction, target)

    def _distance(self, image: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the distance between the critic's features of prediction and label."""
        return self.loss_function(self.critic(image, prediction), self.critic(image, target))

    def _distance_to_frozen(self, image: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the same distance for the step in which the critic is frozen; compiled separately."""
        return self.loss_function(self.critic(image, prediction), self.critic(image, target))


def final_logits(outputs: Tensor | list[Tensor]) -> Tensor:
    """Return the network's logits; with deep supervision, those of the last level."""
    return outputs[0] if isinstance(outputs, list) else outputs


def as_float32(outputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """Return logits, or each of a list of logits, in float32."""
    return [logits.float() for logits in outputs] if isinstance(outputs, list) else outputs.float()
