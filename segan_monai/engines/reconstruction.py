# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainer of a network without labels: it reconstructs hidden parts of images [ours]."""

from __future__ import annotations

import math
from typing import Any

import torch
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor

from segan_monai.engines.phased import PhasedTrainer
from segan_monai.engines.segan import final_logits
from segan_monai.errors import ConfigError


class ReconstructionTrainer(PhasedTrainer):
    """Pre-training with images alone: the network sees an image with hidden patches, and learns what is there.

    Pathak et al. (2016), "Context encoders", without their adversarial loss. Patches of a regular grid are filled with
    the mean of their channel; the loss ``reconstruction`` is the mean absolute difference from the image there, in all
    channels. All weights but those of the last layer, which has as many channels as the image, can then begin another
    training, see ``with_initial_weights``.

    Args:
        patch: side of a patch in pixels or voxels.
        hidden: share of the patches that are hidden, in each image.
        **settings: arguments of ``PhasedTrainer`` except ``adversaries`` and ``loss_function``. The loader yields
            ``image`` (B, C, H, W[, D]); ``network`` maps it to C channels.

    Raises:
        ConfigError: ``patch`` is below 1, or ``hidden`` is not between 0 and 1.
    """

    def __init__(self, *, patch: int = 16, hidden: float = 0.5, **settings: Any) -> None:
        if patch < 1 or not 0 < hidden < 1:
            raise ConfigError(
                f"patch is {patch} and hidden is {hidden}; expected a side of 1 or more, and a share between 0 and 1."
            )
        super().__init__(adversaries={}, loss_function=difference_of_hidden, **settings)
        self.patch = patch
        self.hidden = hidden

    def _iteration(self, engine: ReconstructionTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Take one step on a batch."""
        image: Any = self.moved(self.augmented(batchdata), CommonKeys.IMAGE)
        self.state.output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: image, "terms": {}}
        self.network.train()
        predictions = []
        with self.minimizing("network", self.optimizer) as step:
            for part in self.split(image, hidden_patches(image, self.patch, self.hidden)):
                image, hidden = part.tensors
                mean = image.mean(dim=tuple(range(2, image.ndim)), keepdim=True)
                with self.autocast():
                    predicted = final_logits(self.inferer(torch.where(hidden, mean, image), self.network))
                step.add(
                    part,
                    {"reconstruction": self.loss_function(predicted.float(), image, hidden)},
                    {"reconstruction": 1.0},
                )
                predictions.append(predicted.detach())
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        return self.finish(predictions, step.loss)


def hidden_patches(image: Tensor, patch: int, share: float) -> Tensor:
    """Draw which patches of images (B, C, H, W[, D]) are hidden: at least one, and the same number in each image.

    Returns:
        (B, 1, H, W[, D]), true where the image is hidden.
    """
    size = image.shape[2:]
    grid = [math.ceil(length / patch) for length in size]
    number = math.prod(grid)
    ranks = torch.rand(len(image), number, device=image.device).argsort(1).argsort(1)
    mask = (ranks < max(1, round(share * number))).reshape(len(image), 1, *grid)
    for axis, length in enumerate(size, start=2):
        mask = mask.repeat_interleave(patch, dim=axis).narrow(axis, 0, length)
    return mask


def difference_of_hidden(predicted: Tensor, image: Tensor, hidden: Tensor) -> Tensor:
    """Return the mean absolute difference in the hidden part of each image, averaged over images.

    Args:
        predicted: output of the network (B, C, H, W[, D]).
        image: (B, C, H, W[, D]).
        hidden: (B, 1, H, W[, D]), true where pixels count.
    """
    axes = tuple(range(1, image.ndim))
    return (((predicted - image).abs() * hidden).sum(axes) / (hidden.sum(axes) * image.shape[1])).mean()
