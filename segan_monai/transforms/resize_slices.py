# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Resizing of slices to the network's input size, and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import convert_to_tensor
from torch import Tensor


def resize_planes(volume: Tensor, size: Sequence[int]) -> Tensor:
    """Resize the planes of a volume: floats bilinearly with antialiasing, whole numbers to the nearest.

    Args:
        volume: (C, H, W, D); a plane is (H, W).
        size: new H and W.

    Returns:
        (C, *size, D), of the same type; outer edges stay where they were.
    """
    if tuple(volume.shape[1:3]) == tuple(size):
        return volume
    slices = volume.movedim(-1, 0)
    if volume.is_floating_point() and size[1] == 1:
        # torch 2.13 fills all rows with the first one where the result has one column; one row is right
        resized = F.interpolate(slices.mT, (1, size[0]), mode="bilinear", antialias=True, align_corners=False).mT
    elif volume.is_floating_point():
        resized = F.interpolate(slices, tuple(size), mode="bilinear", antialias=True, align_corners=False)
    else:
        resized = F.interpolate(slices, tuple(size), mode="nearest-exact")
    return resized.movedim(0, -1).contiguous()


class ResizeSlicesd(MapTransform, InvertibleTransform):
    """Dictionary version of ``resize_planes`` that updates the affine; its inverse restores the size.

    MONAI's ``Resized`` does the same by filtering the whole volume, which is a hundred times slower.

    Args:
        keys: volumes (C, H, W, D).
        size: H and W that the network sees.
        allow_missing_keys: whether to skip missing keys.
    """

    def __init__(self, keys: KeysCollection, size: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size = (int(size[0]), int(size[1]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize the keys; everything else is kept."""
        result = dict(data)
        for key in self.key_iterator(result):
            volume = convert_to_tensor(result[key], track_meta=True)
            before = tuple(volume.shape[1:3])
            result[key] = _resized(volume, self.size)
            self.push_transform(result[key], orig_size=before)
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize the keys to the planes that they had."""
        result = dict(data)
        for key in self.key_iterator(result):
            volume = convert_to_tensor(result[key], track_meta=True)
            before = self.pop_transform(volume)["orig_size"]
            result[key] = _resized(volume, [int(length) for length in before])
        return result


def _resized(volume: MetaTensor, size: Sequence[int]) -> MetaTensor:
    """Resize, and scale the affine about the outer edges."""
    change = torch.eye(4, dtype=torch.float64)
    for axis, (old, new) in enumerate(zip(volume.shape[1:3], size, strict=True)):
        change[axis, axis] = old / new
        change[axis, 3] = (old / new - 1) / 2
    meta = {**volume.meta, "affine": volume.affine.double() @ change.to(volume.affine.device)}
    return MetaTensor(resize_planes(volume.as_tensor(), size), meta=meta, applied_operations=volume.applied_operations)
