# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Images and masks as small stacks of slices, on which the quality critic works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch
from torch import Tensor

from segan_monai.content import content_box
from segan_monai.quality.transforms import plain, voxel_ml

SIZE = 64
"""Rows and columns of a slice, by default."""
DEPTH = 48
"""Largest number of slices; more are averaged."""
MARGIN = 2


@dataclass(frozen=True)
class Stack:
    """Image and masks of a case, cropped to their content and resized.

    Attributes:
        image: (D, C, S, S).
        masks: each (D, K, S, S), values from 0 to 1: the share of a voxel that is in the region.
        voxel_ml: volume of a voxel of the stack.
    """

    image: Tensor
    masks: list[Tensor]
    voxel_ml: float


def stack_of(image: Tensor, masks: Sequence[Tensor], size: int = SIZE) -> Stack:
    """Return the stack of a case.

    Image and masks are cropped to the voxels that are not 0 in the image or in the first mask, which is the one to
    judge, and averaged to the size of the stack. The last axis becomes the slices.

    Args:
        image: preprocessed image (C, H, W, D), with an affine.
        masks: (K, H, W, D) each, on any grid; they are brought to that of the image (nearest neighbour). Other masks
            than the first do not change what the critic sees of the image, so labels do not leak into it.
        size: S, rows and columns of the stack; a multiple of 16.
    """
    maps = [on_grid_of(mask, image) for mask in masks]
    voxels = [plain(image).float(), *(plain(mask).float() for mask in maps)]
    content = torch.stack([(values != 0).any(0) for values in voxels[:2]]).any(0)
    rows, columns, slices = content_box(content, MARGIN) or (slice(None),) * 3
    cropped = [values[:, rows, columns, slices].movedim(-1, 1) for values in voxels]
    shape = cropped[0].shape[1:]
    wanted = (min(shape[0], DEPTH), size, size)
    small = [F.adaptive_avg_pool3d(values[None], wanted)[0].transpose(0, 1).contiguous() for values in cropped]
    shrunk = shape[0] * shape[1] * shape[2] / (wanted[0] * wanted[1] * wanted[2])
    return Stack(small[0], small[1:], voxel_ml(image) * shrunk)


def on_grid_of(mask: Tensor, image: Tensor) -> Tensor:
    """Return a mask (K, H, W, D) on the grid of an image, by nearest neighbour."""
    same = mask.shape[1:] == image.shape[1:]
    if not isinstance(mask, MetaTensor) or not isinstance(image, MetaTensor):
        return mask
    if same and torch.allclose(mask.affine.double(), image.affine.double(), atol=1e-4):
        return mask
    resample = ResampleToMatch(mode="nearest", padding_mode="zeros")
    moved: Any = resample(mask.float(), image)
    return moved
