# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for trained networks: they copy a label map that the image holds, voxel by voxel, and learn nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SURE = 20.0  # a logit


class CopyRegions(nn.Module):
    """One logit a class from one value a class.

    Args:
        values: of each class in the image as the network gets it; a voxel is of the class whose value is nearest, if
            that is nearer than `tolerance`.
        channels: whether class k is read from channel k; if not, all are from the only one.
        tolerance: see above.
    """

    def __init__(self, values: list[float], channels: bool = False, tolerance: float = 0.1) -> None:
        super().__init__()
        self.values = values
        self.channels = channels
        self.tolerance = tolerance

    def forward(self, x: Tensor) -> Tensor:
        """Map slices or volumes (B, C, ...) to logits (B, K, ...)."""
        values = x.new_tensor(self.values).view(1, -1, *[1] * (x.ndim - 2))
        return torch.where(((x if self.channels else x[:, :1]) - values).abs() < self.tolerance, SURE, -SURE)


class CopyTissues(CopyRegions):
    """The same for the bundle that normalizes: background first, and the image itself as its normalized version."""

    def segment_and_normalize(self, x: Tensor) -> Tensor:
        """Map (B, 1, H, W, D) to (B, 1 + K + 1, H, W, D): logits and normalized image."""
        logits = self(x)
        return torch.cat([torch.zeros_like(x), logits, x], dim=1)
