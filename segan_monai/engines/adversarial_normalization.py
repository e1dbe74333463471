# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainer of adversarial normalization: Delisle et al. (2020), Sections 2 and 3.3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor, nn
from torch.optim import Optimizer

from segan_monai.engines.accumulation import Part, joined
from segan_monai.engines.parameters import frozen
from segan_monai.engines.phased import PhasedTrainer
from segan_monai.engines.warm_up import WarmUp
from segan_monai.errors import ConfigError
from segan_monai.losses.domain_adversarial import DomainAdversarialLoss, check_critic, gradient_penalty


class AdversarialNormalizationTrainer(PhasedTrainer):
    """Trainer of normalizer G and segmentor S against a discriminator D over K domains and "generated".

    During the warm-up, G alone learns to reconstruct its input (mean squared error), unless it begins as the identity
    (``NormalizerSegmentor.start_as_identity``). After that, each iteration takes two steps:

    1. G and S minimize ``l_seg(S(G(x)), y) + adversarial_weight * l_G(D(G(x)))``, with D frozen.
    2. D minimizes ``l(D(x), z) + l(D(G(x)), fake)``.

    G(x) is computed once per iteration; step 2 uses the detached output of step 1. D therefore learns from G before its
    update, as SegAN's critic does. Step 1 omits D(x), which has no gradient with respect to G.

    Logged terms include ``accuracy_<domain>`` and ``accuracy_generated``, the fraction of images that D classifies
    correctly, and ``accuracy_chance`` = 1 / (K + 1); with the ``wasserstein`` loss, of the K domains only:

    - All accuracies far above chance: D is too strong for G.
    - ``accuracy_generated`` near or below chance while the domains are well above: G fools D, as intended.

    Args:
        discriminator: network D, images to logits (B, K + 1); class K is "generated".
        discriminator_optimizer: optimizer of D.
        domain_loss: adversarial loss of G and D, see ``DomainAdversarialLoss``.
        domains: names of the K domains, in the order of their indices in the loader's ``domain``.
        adversarial_weight: weight lambda of the adversarial term (paper: 1). 0 disables D, which then takes no time.
        discriminator_start: first epoch in which D takes part [ours].
        gradient_penalty_weight: weight of the gradient penalty of the ``wasserstein`` loss.
        warm_up_epochs: number of warm-up epochs (paper: 3); with ``warm_up_error``, their largest number.
        warm_up_error: reconstruction error that ends the warm-up, see ``WarmUp``; None for all epochs.
        **settings: arguments of ``PhasedTrainer``. The loader yields ``image`` (B, C, H, W, D), ``label``
            (B, 1, H, W, D) of integers, and ``domain`` (B,). The network is a ``NormalizerSegmentor``, the optimizer
            that of G and S, and the loss function takes logits and label.

    Raises:
        ConfigError: if ``adversarial_weight`` is not 0 and the network has no normalizer, or D has batch norm and needs
            a gradient penalty.
    """

    def __init__(
        self,
        *,
        discriminator: nn.Module,
        discriminator_optimizer: Optimizer,
        domain_loss: DomainAdversarialLoss,
        domains: Sequence[str],
        adversarial_weight: float = 1.0,
        discriminator_start: int = 1,
        gradient_penalty_weight: float = 10.0,
        warm_up_epochs: int = 3,
        warm_up_error: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**{"adversaries": {"discriminator": discriminator}, "channels_last": False, **settings})
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer
        self.domain_loss = domain_loss
        self.domains = list(domains)
        self.adversarial_weight = adversarial_weight
        has_normalizer: Any = self.network.normalizes
        if adversarial_weight and not has_normalizer:
            raise ConfigError(
                f"adversarial_weight is {adversarial_weight}, but the network has no normalizer to train. Pass "
                "--adversarial_weight 0, or add a normalizer to network_def."
            )
        self.discriminator_start = discriminator_start
        self.gradient_penalty_weight = gradient_penalty_weight
        if adversarial_weight and self.domain_loss.needs_penalty:
            check_critic(discriminator)
        self.warm_up = WarmUp(warm_up_epochs if has_normalizer else 0, warm_up_error)
        self.checkpointed: dict[str, Any] = {"warm_up": self.warm_up}
        self.of_process["warm_up"] = self.warm_up
        # before the given handlers write checkpoints
        last = Events.ITERATION_COMPLETED(event_filter=lambda engine, number: number % engine.state.epoch_length == 0)
        self.add_event_handler(last, lambda: self.warm_up.end_epoch(self.state.epoch))
        self.judge = self.compiled(self._judge)
        self.judge_frozen = self.compiled(self._judge_frozen)

    @property
    def warming_up(self) -> bool:
        """Whether the normalizer trains alone in this epoch."""
        return self.warm_up.active(self.state.epoch)

    @property
    def discriminator_plays(self) -> bool:
        """Whether D takes part in this epoch."""
        return bool(self.adversarial_weight) and self.state.epoch >= self.discriminator_start

    def _iteration(self, engine: AdversarialNormalizationTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Take a warm-up step of G, or a step of G and S and a step of D, on a batch."""
        batchdata = self.augmented(batchdata)
        image, target = self.prepare(batchdata)
        network: Any = self.network
        network.train()
        self.discriminator.train()
        if self.warming_up:
            return self._reconstruct(image)

        domain = self._domain(batchdata) if self.discriminator_plays else None
        weights = {"segmentation": 1.0, "adversarial": self.adversarial_weight}
        predictions, seen = [], []
        with self.minimizing("normalizer and segmentor", self.optimizer) as step:
            for part in self.split(image, target, domain):
                image, target, domain = part.tensors
                with self.autocast():
                    logits, normalized = self.inferer(image, network)
                terms = {"segmentation": self.loss_function(logits.float(), target)}
                if self.discriminator_plays:
                    terms["adversarial"] = self._fool(normalized)
                step.add(part, terms, weights)
                predictions.append(logits.detach())
                seen.append(part._replace(tensors=(image, normalized.detach(), domain)))
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

        if self.discriminator_plays:
            self._step_discriminator(seen)
        return self.finish(predictions, step.loss)

    def _domain(self, batchdata: dict[str, Any]) -> Tensor:
        """Return the domain indices (B,) of a batch on the device."""
        return batchdata["domain"].to(self.state.device, non_blocking=self.non_blocking)

    def _fool(self, normalized: Tensor) -> Tensor:
        """Return the adversarial term of G, with D frozen."""
        with self.autocast(), frozen(self.discriminator):
            return self.domain_loss.generator(self.judge_frozen(normalized))

    def _step_discriminator(self, seen: Sequence[Part]) -> None:
        """Take a step of D on raw and generated images (B, C, H, W, D) and domains (B,)."""
        weights = {"discriminator": 1.0, "gradient_penalty": self.gradient_penalty_weight}
        answers, domains = [], []
        with self.minimizing("discriminator", self.discriminator_optimizer) as step:
            for part in seen:
                image, normalized, domain = part.tensors
                with self.autocast():
                    raw, generated = self.judge(image, normalized)
                terms = {"discriminator": self.domain_loss(raw, generated, domain)}
                if self.domain_loss.needs_penalty:
                    terms["gradient_penalty"] = gradient_penalty(self.discriminator, image, normalized.float())
                step.add(part, terms, weights)
                answers.append((raw.detach(), generated.detach()))
                domains.append(domain)
        of_raw, of_generated = map(joined, zip(*answers, strict=True))
        self.state.output["terms"].update(self.accuracies(of_raw, of_generated, joined(domains)))

    def _reconstruct(self, image: Tensor) -> dict[str, Any]:
        """Take a warm-up step of G."""
        network: Any = self.network
        found = []
        with self.minimizing("normalizer", self.optimizer) as step:
            for part in self.split(image):
                (of_part,) = part.tensors
                with self.autocast():
                    normalized = self.inferer(of_part, network.normalize)
                error = F.mse_loss(normalized.float(), of_part)
                step.add(part, {"reconstruction_mse": error}, {"reconstruction_mse": 1.0})
                found.append(normalized.detach())
        self.warm_up.add(image, joined(found))
        self.state.output[CommonKeys.LOSS] = step.loss
        return self.state.output

    def _judge(self, image: Tensor, normalized: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of raw and generated images for the step of D."""
        return self.discriminator(image), self.discriminator(normalized)

    def _judge_frozen(self, normalized: Tensor) -> Tensor:
        """Return the logits of generated images for the step in which D is frozen; compiled separately."""
        return self.discriminator(normalized)

    def accuracies(self, raw: Tensor, generated: Tensor, domain: Tensor) -> dict[str, Tensor]:
        """Return the accuracy of D per class, scalars by name; NaN for a domain that is not in the batch."""
        classes = len(self.domains)
        judges_generated = self.domain_loss.judges_generated
        answers = raw if judges_generated else raw[:, :classes]
        correct = (answers.argmax(dim=1) == domain).float()
        found = {}
        for index, name in enumerate(self.domains):  # by masks, because indexing would wait for the device
            mask = domain == index
            found[name] = (correct * mask).sum() / mask.sum()
        if judges_generated:
            found["generated"] = (generated.argmax(dim=1) == classes).float().mean()
        found["chance"] = torch.full((), 1 / answers.shape[1], device=raw.device)
        return {f"accuracy_{name}": value for name, value in found.items()}
