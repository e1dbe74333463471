# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""How much a normalization changes an image: similarity to the input, and total variation."""

from __future__ import annotations

import math
from typing import Any

from monai.metrics import SSIMMetric
from torch import Tensor

WINDOW = 7
"""Voxels of a window of the structural similarity along each axis; fewer along an axis that is shorter."""


def structural_similarity(image: Tensor, original: Tensor) -> float:
    """Return the structural similarity (SSIM) of an image to its original, by MONAI's ``SSIMMetric``.

    It is the mean over uniform windows of ``WINDOW`` voxels inside the smallest box with all voxels of the original
    other than 0. The range of values is that of the original in this box.

    Args:
        image: (C, H, W, D).
        original: the same shape.

    Returns:
        1 for equal images; NaN for an original without contrast.
    """
    content = (original != 0).any(dim=0).nonzero()
    if not len(content):
        return math.nan
    first, last = content.amin(dim=0).tolist(), (content.amax(dim=0) + 1).tolist()
    box = (slice(None), *map(slice, first, last))
    one, other = image[box].float(), original[box].float()
    extent = float(other.max() - other.min())
    if not extent:
        return math.nan
    window = [min(WINDOW, side) for side in other.shape[1:]]
    ssim = SSIMMetric(spatial_dims=3, data_range=extent, kernel_type="uniform", win_size=window)
    of_image: Any = ssim(one[None], other[None])
    return float(of_image)


def total_variation(image: Tensor, inside: Tensor) -> float:
    """Return the mean absolute difference of neighbouring voxels that are both inside a mask.

    Args:
        image: (C, H, W, D).
        inside: mask (1, H, W, D) or (C, H, W, D).

    Returns:
        Mean over all pairs of neighbours along the three axes; NaN without a pair.
    """
    image, inside = image.float(), inside.expand(image.shape)
    total, pairs = 0.0, 0
    for axis in (1, 2, 3):
        both = inside.narrow(axis, 1, inside.shape[axis] - 1) & inside.narrow(axis, 0, inside.shape[axis] - 1)
        total += float(image.diff(dim=axis).abs()[both].double().sum())
        pairs += int(both.sum())
    return total / pairs if pairs else math.nan
