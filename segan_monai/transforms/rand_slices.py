# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Random 2-D training slices from volumes in memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_tensor
from torch import Tensor

from segan_monai.errors import ConfigError


def centre_padding(plane: Sequence[int], size: Sequence[int]) -> list[int]:
    """Zeros to add left, right, above and below (the order of `F.pad`) so that a plane in the middle fills `size`."""
    pad_h, pad_w = (max(wanted - found, 0) for found, wanted in zip(plane, size, strict=True))
    return [pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2]


def cut_slice(volume: Tensor, axis: int, index: int, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """Cut a window out of one slice; where the plane is smaller than the window, it is centred and padded with zeros.

    Args:
        volume: (C, H, W, D).
        axis: 0, 1 or 2 of (H, W, D).
        index: of the slice.
        start: first row and column of the window, 0 where the plane is not larger.
        size: rows and columns of the window.

    Returns:
        (C, *size), a copy.
    """
    plane = volume.select(1 + axis, index)[:, start[0] : start[0] + size[0], start[1] : start[1] + size[1]]
    padding = centre_padding(plane.shape[1:], size)
    return F.pad(plane, padding) if any(padding) else plane.clone()


class SlicesWithContentd(MapTransform):
    """Note which slices of a volume hold anything but 0, as ``<key>_slices``, for `RandSlicesd`.

    It belongs at the end of the cached transforms, so that the volume is searched once and not in every epoch. The
    voxels of a slice then lie together in memory, so that to draw it touches no others; the shape stays (C, H, W, D).
    The dataset must keep that order (MONAI's `CacheDataset`: ``as_contiguous=False``).

    Args:
        keys: volumes (C, H, W, D).
        axis: the axis cut into slices.
    """

    def __init__(self, keys: KeysCollection, axis: int = 2) -> None:
        super().__init__(keys)
        self.axis = axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with an array of slice indices beside each volume."""
        result = dict(data)
        for key in self.key_iterator(result):
            volume = torch.as_tensor(result[key]).movedim(1 + self.axis, 0).contiguous().movedim(0, 1 + self.axis)
            result[key] = volume
            other = [dim for dim in range(volume.ndim) if dim != 1 + self.axis]
            result[f"{key}_slices"] = np.flatnonzero((volume != 0).sum(dim=other).numpy())
        return result


class RandSlicesd(Randomizable, MapTransform):
    """Draw several random slices from a volume, each with a random window in the plane.

    A volume is loaded once and gives `num_samples` slices (paper: 160x160 windows of axial slices, Xue et al. 2017,
    section 3). Use it after the cached transforms; the result is a list of samples as MONAI's Rand*CropSamplesd give.

    Args:
        keys: volumes (C, H, W, D) to cut alike, for example ``["image", "label"]``, after `SlicesWithContentd`.
        label_key: regions (K, H, W, D); a slice that holds any of them is a foreground slice.
        num_samples: slices a volume.
        roi_size: rows and columns of a window, at most the plane or padded with zeros to this size.
        axis: the axis cut into slices.
        foreground_probability: a slice is drawn from the foreground slices with this probability, else from all
            slices with image content, so that empty anatomy is seen too [ours; paper: every slice alike, which is 0].
        image_key: image (C, H, W, D) whose empty slices are never drawn.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        num_samples: int,
        roi_size: Sequence[int],
        axis: int = 2,
        foreground_probability: float = 0.5,
        image_key: str = "image",
    ) -> None:
        MapTransform.__init__(self, keys)
        if not 0 <= foreground_probability <= 1:
            raise ConfigError(f"foreground_probability is {foreground_probability}, expected a number from 0 to 1.")
        if num_samples < 1:
            raise ConfigError(f"num_samples is {num_samples}, expected at least 1 slice a volume.")
        self.label_key = label_key
        self.image_key = image_key
        self.num_samples = num_samples
        self.roi_size = tuple(roi_size)
        self.axis = axis
        self.foreground_probability = foreground_probability

    def randomize(self, data: Mapping[Hashable, Any]) -> list[tuple[int, list[int]]]:
        """Draw slice indices and window starts."""
        foreground, content = data[f"{self.label_key}_slices"], data[f"{self.image_key}_slices"]
        shape = data[self.image_key].shape[1:]
        if not len(content):
            content = np.arange(shape[self.axis])
        plane = [n for i, n in enumerate(shape) if i != self.axis]
        samples = []
        for _ in range(self.num_samples):
            favoured = len(foreground) and self.R.random() < self.foreground_probability
            index = int(self.R.choice(foreground if favoured else content))
            start = [int(self.R.randint(0, max(n - s, 0) + 1)) for n, s in zip(plane, self.roi_size, strict=True)]
            samples.append((index, start))
        return samples

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return `num_samples` dictionaries: plain tensors (C, rows, columns) under `keys`, and the case's name."""
        volumes = {key: convert_to_tensor(data[key], track_meta=False) for key in self.key_iterator(dict(data))}
        name: dict[Hashable, Any] = {"case": data["case"]} if "case" in data else {}
        return [
            name | {key: cut_slice(volume, self.axis, index, start, self.roi_size) for key, volume in volumes.items()}
            for index, start in self.randomize(data)
        ]
