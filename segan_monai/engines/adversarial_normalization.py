# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The alternating steps of adversarial normalization (Delisle et al. 2019, sections 2 and 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor, nn
from torch.optim import Optimizer

from segan_monai.engines.phased import PhasedTrainer, frozen
from segan_monai.errors import ConfigError


class AdversarialNormalizationTrainer(PhasedTrainer):
    """Trains normalizer G and segmentor S against a discriminator D of K domains and "generated".

    For the first epochs G alone learns to give back its input (mean squared error). Then, in each iteration:

    1. G's and S's step: D is fixed; they descend ``l_seg(S(G(x)), y) + weight * l_G(D(G(x)))``.
    2. D's step: it descends ``l(D(x), z) + l(D(G(x)), fake)``.

    G(x) is computed once: D's step takes that of the first step, detached. So D learns from the G of before the step,
    as SegAN's critic does. D(x), which has no gradient for G, is left out of the first step.

    The epoch's log gets ``accuracy_<domain>`` and ``accuracy_generated``, the share of images that D puts in their own
    class, beside ``accuracy_chance`` = 1 / (K + 1). Far above chance throughout: D is too strong for G. ``generated``
    near chance or below while domains are well above: G fools D, as it should.

    Args:
        discriminator: images to logits (B, K + 1), class K for generated ones.
        discriminator_optimizer: of D.
        domain_loss: what G and D play for, see `DomainAdversarialLoss`.
        domains: names of the K domains, in the order of their numbers in the loader's ``domain``.
        adversarial_weight: lambda (paper: 1). With 0 there is no D: it neither learns nor costs time.
        warm_up_epochs: epochs in which G alone learns to give back its input (paper: 3).
        **settings: arguments of `PhasedTrainer`. Its loader yields ``image`` (B, C, H, W, D),
            ``label`` (B, 1, H, W, D) of whole numbers and ``domain`` (B,); its network is a `NormalizerSegmentor`; its
            optimizer is that of G and S; its loss function is of logits and label.

    Raises:
        ConfigError: if a network without normalizer shall play against D.
    """

    def __init__(
        self,
        *,
        discriminator: nn.Module,
        discriminator_optimizer: Optimizer,
        domain_loss: Any,
        domains: Sequence[str],
        adversarial_weight: float = 1.0,
        warm_up_epochs: int = 3,
        **settings: Any,
    ) -> None:
        super().__init__(adversaries={"discriminator": discriminator}, **{"channels_last": False, **settings})
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer
        self.domain_loss: Callable = domain_loss
        self.domains = list(domains)
        self.adversarial_weight = adversarial_weight
        has_normalizer: Any = self.network.normalizes
        if adversarial_weight and not has_normalizer:
            raise ConfigError(
                f"adversarial_weight is {adversarial_weight}, but the network has no normalizer that could play. Pass "
                "--adversarial_weight 0, or give network_def a normalizer."
            )
        self.warm_up_epochs = warm_up_epochs if has_normalizer else 0

    def _iteration(self, engine: AdversarialNormalizationTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Take one step of G alone (warm-up), or one of G and S and one of D, on a batch."""
        image, target = self.prepare(batchdata)
        network: Any = self.network
        network.train()
        self.discriminator.train()
        if engine.state.epoch <= self.warm_up_epochs:
            with self.autocast():
                normalized = self.inferer(image, network.normalize)
            terms = {"reconstruction_mse": F.mse_loss(normalized.float(), image)}
            loss = self.minimize("normalizer", terms, {"reconstruction_mse": 1.0}, self.optimizer)
            engine.state.output[CommonKeys.LOSS] = loss
            return engine.state.output

        with self.autocast():
            logits, normalized = self.inferer(image, network)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        terms = {"segmentation": self.loss_function(logits.float(), target)}
        if self.adversarial_weight:
            with self.autocast(), frozen(self.discriminator):
                terms["adversarial"] = self.domain_loss.generator(self.discriminator(normalized))
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        weights = {"segmentation": 1.0, "adversarial": self.adversarial_weight}
        loss = self.minimize("normalizer and segmentor", terms, weights, self.optimizer)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

        if self.adversarial_weight:
            domain = batchdata["domain"].to(engine.state.device, non_blocking=self.non_blocking)
            with self.autocast():
                raw, generated = self.discriminator(image), self.discriminator(normalized.detach())
            terms = {"discriminator": self.domain_loss(raw, generated, domain)}
            self.minimize("discriminator", terms, {"discriminator": 1.0}, self.discriminator_optimizer)
            engine.state.output["terms"].update(self.accuracies(raw, generated, domain))

        return self.finish(logits, loss)

    def accuracies(self, raw: Tensor, generated: Tensor, domain: Tensor) -> dict[str, Tensor]:
        """The share of images that D puts in their own class, by domain; NaN for a domain that the batch lacks."""
        classes = len(self.domains)
        correct = (raw.argmax(dim=1) == domain).float()
        found = {name: correct[domain == index].mean() for index, name in enumerate(self.domains)}
        found["generated"] = (generated.argmax(dim=1) == classes).float().mean()
        found["chance"] = torch.tensor(1 / (classes + 1), device=raw.device)
        return {f"accuracy_{name}": value for name, value in found.items()}
