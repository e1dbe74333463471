# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the content of an image is."""

from __future__ import annotations

from torch import Tensor


def content_box(used: Tensor, margin: int = 0) -> tuple[slice, ...] | None:
    """Return the bounding box of the content of an image.

    Args:
        used: boolean tensor (H, W[, D]), True where there is content.
        margin: voxels around the content, as far as the image reaches.

    Returns:
        A slice per axis; None without content.

    Examples:
        >>> import torch
        >>> content_box(torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]]) > 0, margin=1)
        (slice(0, 2, None), slice(0, 3, None))
    """
    box = []
    for axis, length in enumerate(used.shape):
        others = [other for other in range(used.ndim) if other != axis]
        found = (used.any(dim=others) if others else used).nonzero()
        if not len(found):
            return None
        box.append(slice(max(int(found[0]) - margin, 0), min(int(found[-1]) + 1 + margin, length)))
    return tuple(box)
