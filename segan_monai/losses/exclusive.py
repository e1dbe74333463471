# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses over exclusive classes for overlapping regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from segan_monai.networks.exclusive import exclusive_classes, regions_to_classes


class ExclusiveClassLoss(nn.Module):
    """Wrapper that converts region maps to one-hot classes before it calls a loss over exclusive classes.

    Args:
        regions: label values of each of the K regions.
        loss: called with logits and one-hot target, both (B, 1 + N, ...), background first; for example torch's
            ``CrossEntropyLoss`` or MONAI's ``DiceCELoss(softmax=True)``.
    """

    classes: Tensor

    def __init__(self, regions: Mapping[str, Sequence[int]], loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.register_buffer("classes", exclusive_classes(regions), persistent=False)
        self.loss = loss

    def forward(self, logits: Tensor, maps: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: (B, 1 + N, ...) of background and the N exclusive classes.
            maps: (B, K, ...), 0 or 1, one map per region.
        """
        return self.loss(logits, regions_to_classes(maps, self.classes.to(maps.device)))
