# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Random 3-D training patches from volumes in memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_tensor
from torch import Tensor

from segan_monai.errors import ConfigError
from segan_monai.transforms.mirroring import each_mirror_axis, mirror_slices


def cut_patch(volume: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """Cut a patch; along an axis where the volume is smaller, it is centred and padded with zeros.

    Args:
        volume: (C, H, W, D), or a plane (C, H, W).
        start: first voxel of the patch along each axis, 0 where the volume is not larger.
        size: voxels along each axis.

    Returns:
        (C, *size), a copy.
    """
    padding: list[int] = []
    for axis, (first, side) in enumerate(zip(start, size, strict=True)):
        volume = volume.narrow(1 + axis, first, min(side, volume.shape[1 + axis]))
        missing = side - volume.shape[1 + axis]
        padding = [missing // 2, missing - missing // 2, *padding]
    return F.pad(volume, padding) if any(padding) else volume.clone()


class RandForegroundPatchesd(Randomizable, MapTransform):
    """Draw several random patches from a volume, as ``RandSlicesd`` draws slices.

    A patch is centred on a random voxel, and moved inwards near an edge. MONAI's ``RandCropByPosNegLabeld`` does not
    fit: it takes the first map of several for the background, and needs a label.

    Args:
        keys: volumes (C, H, W, D) to cut alike, for example ``["image", "label"]``.
        label_key: regions (K, H, W, D); voxels in any of them are foreground.
        num_samples: patches per volume.
        patch_size: voxels along each axis; a smaller volume is centred and padded with zeros.
        foreground_probability: probability of a foreground voxel as the centre; otherwise, any voxel with image content
            is drawn.
        image_key: image (C, H, W, D); 0 is no content.
        mask_key: where the label is known (K, H, W, D), if it is known in part: other voxels are never drawn.
        mirror_axes: axes along which each patch is mirrored with probability 0.5.
        allow_missing_keys: whether to skip missing keys. Without a label, any voxel with image content is drawn.

    Raises:
        ConfigError: if an argument is out of range.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        num_samples: int,
        patch_size: Sequence[int],
        foreground_probability: float = 0.5,
        image_key: str = "image",
        mirror_axes: Sequence[int] = (),
        allow_missing_keys: bool = False,
        mask_key: str = "mask",
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if not 0 <= foreground_probability <= 1:
            raise ConfigError(f"foreground_probability is {foreground_probability}, expected a number from 0 to 1.")
        if num_samples < 1:
            raise ConfigError(f"num_samples is {num_samples}, expected at least 1 patch per volume.")
        if len(patch_size) != 3 or min(patch_size) < 1:
            raise ConfigError(f"patch_size is {list(patch_size)}, expected 3 numbers of voxels of at least 1.")
        self.label_key = label_key
        self.image_key = image_key
        self.mask_key = mask_key
        self.num_samples = num_samples
        self.patch_size = tuple(patch_size)
        self.foreground_probability = foreground_probability
        self.mirror_axes = each_mirror_axis(mirror_axes)

    def randomize(self, volumes: Mapping[Hashable, Tensor]) -> list[tuple[list[int], list[int], bool]]:
        """Draw the first voxel of each patch and mirrored axes, and whether any voxel could be its centre."""
        shape = volumes[self.image_key].shape[1:]
        content = (volumes[self.image_key] != 0).any(0)
        known = volumes.get(self.mask_key)
        if known is not None and (known := known.any(0)).any():
            content = inside if (inside := content & known).any() else known
        foreground = torch.zeros_like(content) if self.label_key not in volumes else volumes[self.label_key].any(0)
        positions = {True: content.nonzero(), False: foreground.nonzero()}
        samples = []
        for _ in range(self.num_samples):
            uniform = not (len(positions[False]) and self.R.random() < self.foreground_probability)
            among = positions[uniform]
            centre = among[int(self.R.randint(len(among)))].tolist() if len(among) else [n // 2 for n in shape]
            start = [
                min(max(middle - side // 2, 0), max(whole - side, 0))
                for middle, side, whole in zip(centre, self.patch_size, shape, strict=True)
            ]
            samples.append((start, [axis for axis in self.mirror_axes if self.R.random() < 0.5], uniform))
        return samples

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return ``num_samples`` dictionaries: plain tensors (C, *patch_size) under ``keys``, and the case's name.

        ``uniform`` is false for patches that were drawn because of their foreground.
        """
        volumes = {key: convert_to_tensor(data[key], track_meta=False) for key in self.key_iterator(dict(data))}
        name: dict[Hashable, Any] = {"case": data["case"]} if "case" in data else {}
        samples = []
        for start, mirrored, uniform in self.randomize(volumes):
            cut = {key: cut_patch(volume, start, self.patch_size) for key, volume in volumes.items()}
            cut = {key: mirror_slices(patch, mirrored, axis=None) for key, patch in cut.items()}
            samples.append({**name, "uniform": uniform, **cut})
        return samples
