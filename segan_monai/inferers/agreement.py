# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Agreement of the predictions that inference averages: slicing axes, mirrored views, members of an ensemble."""

from __future__ import annotations

import torch
from torch import Tensor


class Agreement:
    """Sums of the overlap of predictions of the same voxels, from which the pairwise Dice follows.

    An inferer whose attribute ``agreement`` is set compares the outputs that it averages. Counts of batches and
    windows add up, so nothing but the masks of one mean is held in memory.

    Args:
        softmax: whether a voxel has the class with the highest logit; else each class whose logit is above 0.

    Examples:
        >>> agreement = Agreement()
        >>> masks: list[Tensor] = []
        >>> agreement.compare("axes", masks, torch.tensor([[[1.0, 1.0, -1.0]]]))
        >>> agreement.compare("axes", masks, torch.tensor([[[1.0, -1.0, -1.0]]]))
        >>> agreement.dice()["axes"]  # 2 * 1 / (2 + 1)
        [0.6666666865348816]
    """

    def __init__(self, softmax: bool = False) -> None:
        self.softmax = softmax
        self.counts: dict[str, Tensor] = {}

    def clear(self) -> None:
        """Forget all counts, before the next case."""
        self.counts = {}

    def compare(self, kind: str, masks: list[Tensor], logits: Tensor) -> None:
        """Add the overlap of an output with each earlier output of the same voxels.

        Args:
            kind: what the outputs differ in, such as ``axes``.
            masks: masks of the earlier outputs; that of this output is appended.
            logits: (N, K, ...).
        """
        mask = logits > 0
        if self.softmax:
            mask = torch.zeros_like(mask).scatter_(1, logits.argmax(1, keepdim=True), True)
        dims = [dim for dim in range(mask.ndim) if dim != 1]
        size = mask.sum(dims)
        for other in masks:
            counts = torch.stack([(mask & other).sum(dims), size + other.sum(dims)]).cpu()
            self.counts[kind] = self.counts[kind] + counts if kind in self.counts else counts
        masks.append(mask)

    def dice(self) -> dict[str, list[float]]:
        """Return the pairwise Dice of each of the K classes by kind; 1 where all outputs are empty."""
        return {
            kind: torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0).tolist()
            for kind, (both, total) in self.counts.items()
        }
