# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainer of adversarial normalization with images of unlabelled domains [ours]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.optim import Optimizer

from segan_monai.engines.accumulation import Part
from segan_monai.engines.adversarial_normalization import AdversarialNormalizationTrainer
from segan_monai.engines.joined_loaders import JoinedLoaders
from segan_monai.engines.parameters import frozen
from segan_monai.engines.unlabeled_images import unlabeled_images
from segan_monai.errors import ConfigError


class DomainAdaptationTrainer(AdversarialNormalizationTrainer):
    """``AdversarialNormalizationTrainer`` that also sees images u of domains without labels.

    Without ``unlabeled_data_loader`` and with ``identity_weight`` 0, it is that trainer, bit for bit. Else, an
    iteration takes up to three steps:

    1. G and S minimize ``l_seg(S(G(x)), y) + w_a l_G(D(G(b))) + w_i |G(b) - b| + w_o l(O(S(G(u))), labelled)``, where b
       is x and u, with D and O fixed.
    2. D minimizes its loss on raw and generated images of all domains.
    3. The output critic O learns to tell the softmax maps of labelled images (class 0) from those of unlabelled ones
       (class 1), as in Tsai et al. (2018), Section 3.

    G and S see x and u in one batch, so that their norm layers have the statistics of both. With
    ``unlabeled_statistics``, they see them apart, and only u changes the running statistics, with which images are
    segmented later. That is AdaBN (Li et al. (2017)), which needs no further term.

    Args:
        unlabeled_data_loader: yields ``image`` (B, C, H, W, D) and ``domain`` (B,); None for none.
        identity_weight: weight w_i of the mean absolute difference between normalized and raw images.
        output_weight: weight w_o of the output critic's term; 0 omits the critic.
        output_critic: network O, softmax maps (B, 1 + K, H, W, D) to logits (B, 2).
        output_critic_optimizer: optimizer of O.
        unlabeled_statistics: whether running statistics of norm layers are those of unlabelled images alone.
        **settings: arguments of ``AdversarialNormalizationTrainer``. D and O take part from ``discriminator_start`` on.

    Raises:
        ConfigError: if a term lacks what it needs: unlabelled images, the output critic, or a normalizer; or
            ``output_weight`` is set together with ``unlabeled_statistics``.
    """

    def __init__(
        self,
        *,
        unlabeled_data_loader: Iterable | None = None,
        identity_weight: float = 0.0,
        output_weight: float = 0.0,
        output_critic: nn.Module | None = None,
        output_critic_optimizer: Optimizer | None = None,
        unlabeled_statistics: bool = False,
        **settings: Any,
    ) -> None:
        needs = {"output_weight": output_weight, "unlabeled_statistics": unlabeled_statistics}
        if unlabeled_data_loader is None and any(needs.values()):
            key = next(name for name, value in needs.items() if value)
            raise ConfigError(
                f"{key} is {needs[key]}, but there are no unlabelled images. Name the domains whose labels are hidden "
                "in --unlabeled_domains, pass --unlabeled use for cases without a label map, or omit this setting."
            )
        if output_weight and unlabeled_statistics:
            raise ConfigError(
                f"output_weight is {output_weight} and unlabeled_statistics is true, but then unlabelled images are "
                "not segmented with a gradient, and the output critic sees none. Pass one of the two."
            )
        if output_weight and (output_critic is None or output_critic_optimizer is None):
            raise ConfigError("output_weight needs an output_critic and its output_critic_optimizer.")
        if unlabeled_data_loader is not None:
            joined = JoinedLoaders(settings["train_data_loader"], {"unlabeled": unlabeled_data_loader})
            settings["train_data_loader"] = joined
        if output_weight:  # begins with the same weights in every process, as the discriminator does
            settings["adversaries"] = {"discriminator": settings["discriminator"], "output_critic": output_critic}
        super().__init__(**settings)
        normalizes: Any = self.network.normalizes
        if identity_weight and not normalizes:
            raise ConfigError(
                f"identity_weight is {identity_weight}, but the network has no normalizer. Pass --identity_weight 0."
            )
        self.has_unlabeled = unlabeled_data_loader is not None
        self.identity_weight = identity_weight
        self.output_weight = output_weight
        self.output_critic = output_critic if output_weight else None
        self.output_critic_optimizer = output_critic_optimizer
        self.unlabeled_statistics = unlabeled_statistics
        if self.output_critic is not None:
            self.checkpointed |= {
                "output_critic": self.output_critic,
                "output_critic_optimizer": output_critic_optimizer,
            }
        loader = self.data_loader
        if isinstance(loader, JoinedLoaders):
            loader.attach(self)

    @property
    def output_critic_plays(self) -> bool:
        """Whether the output critic takes part in this epoch."""
        return self.output_critic is not None and self.state.epoch >= self.discriminator_start

    def _iteration(self, engine: AdversarialNormalizationTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Take the steps of G and S, of D and of the output critic on a labelled and an unlabelled batch."""
        if self.warming_up or not (self.has_unlabeled or self.identity_weight):
            return super()._iteration(engine, batchdata)
        batchdata = self.augmented(batchdata)
        image, target = self.prepare(batchdata)
        network: Any = self.network
        network.train()
        self.discriminator.train()
        unlabeled = self._unlabeled(batchdata, image)
        domains = self._domains(batchdata, unlabeled) if self.discriminator_plays else [None, None]
        weights = {
            "segmentation": 1.0,
            "adversarial": self.adversarial_weight,
            "identity": self.identity_weight,
            "output": self.output_weight,
        }
        predictions, seen, found = [], [], []
        with self.minimizing("normalizer and segmentor", self.optimizer) as step:
            for part in self.split(image, target, unlabeled, *domains):
                image, target, unlabeled, *domains = part.tensors
                labelled = len(image)
                image, logits, normalized = self._segment(image, unlabeled)
                terms = {"segmentation": self.loss_function(logits[:labelled].float(), target)}
                if self.discriminator_plays:
                    terms["adversarial"] = self._fool(normalized)
                if self.identity_weight:
                    terms["identity"] = F.l1_loss(normalized.float(), image)
                maps = logits.float().softmax(dim=1)
                if self.output_critic_plays:
                    terms["output"] = self._output_loss(maps[labelled:], 0)
                step.add(part, terms, weights)
                predictions.append(logits[:labelled].detach())
                domain = torch.cat([each for each in domains if each is not None]) if self.discriminator_plays else None
                seen.append(part._replace(tensors=(image, normalized.detach(), domain)))
                found.append(part._replace(tensors=(maps.detach(), labelled)))
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

        if self.discriminator_plays:
            self._step_discriminator(seen)
        if self.output_critic_plays:
            self._step_output_critic(found)
        return self.finish(predictions, step.loss)

    def _segment(self, image: Tensor, unlabeled: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the images that were segmented, labelled ones first, their logits, and the normalized images."""
        network: Any = self.network
        if unlabeled is not None and self.unlabeled_statistics:
            with running_statistics_unchanged(network), self.autocast():
                logits, normalized = self.inferer(image, network)
            with torch.no_grad(), self.autocast():
                self.inferer(unlabeled, network)
            return image, logits, normalized
        image = image if unlabeled is None else torch.cat([image, unlabeled])
        with self.autocast():
            logits, normalized = self.inferer(image, network)
        return image, logits, normalized

    def _domains(self, batchdata: dict[str, Any], unlabeled: Tensor | None) -> list[Tensor | None]:
        """Return the domain indices of labelled images and of the unlabelled ones that are normalized with them."""
        together = unlabeled is not None and not self.unlabeled_statistics
        return [self._domain(batchdata), self._domain(batchdata["unlabeled"]) if together else None]

    def _unlabeled(self, batchdata: dict[str, Any], image: Tensor) -> Tensor | None:
        """Return the unlabelled images on the device, or None if no term needs them in this epoch."""
        if not (self.discriminator_plays or self.output_critic_plays or self.unlabeled_statistics):
            return None
        return unlabeled_images(self, batchdata, image) if self.has_unlabeled else None

    def _output_loss(self, maps: Tensor, answer: int) -> Tensor:
        """Return the cross-entropy of a fixed output critic that should answer with a class, a scalar."""
        critic: Any = self.output_critic
        critic.train()
        with self.autocast(), frozen(critic):
            scores = critic(maps)
        return F.cross_entropy(scores.float(), torch.full((len(maps),), answer, device=maps.device))

    def _step_output_critic(self, found: Sequence[Part]) -> None:
        """Take a step of the output critic on the softmax maps of labelled images and the others after them."""
        critic: Any = self.output_critic
        optimizer: Any = self.output_critic_optimizer
        with self.minimizing("output critic", optimizer) as step:
            for part in found:
                maps, labelled = part.tensors
                with self.autocast():
                    scores = critic(maps).float()
                answers = (torch.arange(len(maps), device=maps.device) >= labelled).long()
                step.add(part, {"output_critic": F.cross_entropy(scores, answers)}, {"output_critic": 1.0})


@contextmanager
def running_statistics_unchanged(network: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norm in the block; training uses those of the batch."""
    layers = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum
