# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""SegAN's alternating steps (Xue et al. 2017, section 2.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.optim import Optimizer

from segan_monai.engines.phased import PhasedTrainer, clamp_weights, frozen
from segan_monai.errors import ConfigError


class SegANTrainer(PhasedTrainer):
    """Trains a segmentor against critics over one multi-scale L1 loss.

    One iteration, as in the paper:

    1. C's step: S is fixed; C climbs ``l(f_C(x * S(x)), f_C(x * y))``; then its weights are clamped.
    2. S's step: C is fixed; S descends the same loss, through the C just updated.

    S does not change between the two steps, so it is evaluated once; C is frozen and ``f_C(x * y)`` has no gradient in
    S's step. The gradients are those of the literal algorithm, for about three quarters of its arithmetic. Predicted
    and true masked images go through C separately, since batch norm statistics must not mix them.

    Args:
        critic: called with image and label map, returns features for `loss_function`; see `SegANCritics`.
        critic_optimizer: of the critic.
        supervised_loss: an extra loss of logits and label for S, for example Dice (skin-lesion code); None for none.
        supervised_weight: its factor: 0 in the paper, 1 in the skin-lesion code.
        adversarial_weight: factor of the critic's distance in S's loss (paper: 1); 0 leaves the critic out of the
            game, which is the baseline of a segmentor trained by its supervised loss alone.
        critic_start: the epoch in which the critic joins (paper: 1). Before that S descends its supervised loss alone,
            which costs no passes of the critic: an adversary of noise teaches nothing [ours].
        clamp: bound c of the critic's weights (paper: 0.01; code: 0.05).
        clamp_norm: whether the affine weights of the critic's norm layers are clamped too, or only those of
            convolutions [ours: only convolutions, since a norm layer scaled to c would hide all that lies behind it].
        compile: backend of `torch.compile` for the network, and for the critic together with the loss; None for none.
            ``inductor`` needs Triton on CUDA and a C++ compiler on a CPU, and minutes for the first iteration.
        **settings: arguments of `PhasedTrainer`. Its loader yields ``image`` (B, C, H, W) and
            ``label`` (B, K, H, W), 0 or 1; its network is the segmentor, images to logits (B, K, H, W); its loss
            function is the distance of two sets of features, see `MultiScaleL1Loss`.
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
        clamp: float = 0.01,
        clamp_norm: bool = False,
        compile: str | None = None,
        **settings: Any,
    ) -> None:
        supervised = supervised_loss is not None and supervised_weight
        if not supervised and (not adversarial_weight or critic_start > 1):
            raise ConfigError(
                f"the segmentor has no loss: adversarial_weight {adversarial_weight}, critic_start {critic_start}, "
                f"supervised_weight {supervised_weight}. Expected a supervised loss, or a critic from the first epoch: "
                "set supervised_weight to 1, or adversarial_weight and critic_start to 1."
            )
        super().__init__(adversaries={"critic": critic} if adversarial_weight else {}, **settings)
        self.critic = critic
        self.critic_optimizer = critic_optimizer
        self.supervised_loss = supervised_loss
        self.supervised_weight = supervised_weight
        self.adversarial_weight = adversarial_weight
        self.critic_start = critic_start
        self.clamp = clamp
        self.distance = torch.compile(self._distance, backend=compile) if compile else self._distance
        if compile:
            self.network.compile(backend=compile)  # in place: the names of its weights stay
        self.clamped = [p for p in critic.parameters() if clamp_norm or p.ndim > 1]

    @property
    def critic_plays(self) -> bool:
        """Whether the critic is in the game, in the epoch that runs."""
        return bool(self.adversarial_weight) and self.state.epoch >= self.critic_start

    def _iteration(self, engine: SegANTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Take one step of the critic and one of the segmentor on a batch."""
        image, target = self.prepare(batchdata)
        self.network.train()
        self.critic.train()
        with self.autocast():
            logits = self.inferer(image, self.network)
            prediction = logits.sigmoid()
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

        terms = {}
        if self.critic_plays:
            self._step_critic(image, prediction.detach(), target)
            terms["segmentor_l1"] = self.distance_for_segmentor(image, prediction, target)
        if self.supervised_loss is not None and self.supervised_weight:
            terms["supervised"] = self.supervised_loss(logits.float(), target)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        weights = {"segmentor_l1": self.adversarial_weight, "supervised": self.supervised_weight}
        loss = self.minimize("segmentor", terms, weights, self.optimizer)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

        return self.finish(logits, loss)

    def _step_critic(self, image: Tensor, prediction: Tensor, target: Tensor) -> None:
        """Let the critic climb the distance between what it sees in prediction and truth; then clamp its weights."""
        with self.autocast():
            distance = self.distance(image, prediction, target)
        self.minimize("critic", {"critic_l1": distance}, {"critic_l1": -1.0}, self.critic_optimizer)
        clamp_weights(self.clamped, self.clamp)

    def distance_for_segmentor(self, image: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        """What the segmentor descends: the distance with a gradient into the prediction alone."""
        with self.autocast(), frozen(self.critic):
            return self.distance(image, prediction, target)

    def _distance(self, image: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        """The distance of what the critic sees in prediction and truth."""
        return self.loss_function(self.critic(image, prediction), self.critic(image, target))
