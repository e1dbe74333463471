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
from segan_monai.transforms.mirroring import each_mirror_axis, mirror_slices


def centre_padding(plane: Sequence[int], size: Sequence[int]) -> list[int]:
    """Return the padding that centres a plane in ``size``: left, right, top, bottom, in the order of ``F.pad``."""
    pad_h, pad_w = (max(wanted - found, 0) for found, wanted in zip(plane, size, strict=True))
    return [pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2]


def neighbouring_slices(slices: Tensor, index: Tensor, neighbours: int) -> Tensor:
    """Stack slices with their neighbours as the channels of a 2-D network (2.5-D).

    Args:
        slices: (B, S, C, U, V), a batch of volumes in slices.
        index: N indices into the B * S slices.
        neighbours: number of neighbours on each side; beyond the ends of a volume they are 0.

    Returns:
        (N, (2 * neighbours + 1) * C, U, V): the C channels of each slice, in slice order.
    """
    count = slices.shape[1]
    if not neighbours:
        return slices.flatten(0, 1)[index]
    offsets = torch.arange(-neighbours, neighbours + 1, device=index.device)
    place = (index % count)[:, None] + offsets
    inside = (place >= 0) & (place < count)
    found = slices[(index // count)[:, None], place.clamp(0, count - 1)]
    return (found * inside[..., None, None, None]).flatten(1, 2)


def cut_slice(
    volume: Tensor, axis: int, index: int, start: Sequence[int], size: Sequence[int], neighbours: int = 0
) -> Tensor:
    """Cut a window out of one slice; where the plane is smaller than the window, it is centred and padded with zeros.

    Args:
        volume: (C, H, W, D).
        axis: 0, 1 or 2 of (H, W, D).
        index: of the slice.
        start: first row and column of the window, 0 where the plane is not larger.
        size: rows and columns of the window.
        neighbours: number of slices on each side that become channels, see ``neighbouring_slices``.

    Returns:
        ((2 * neighbours + 1) * C, *size), a copy.
    """
    slices = volume.movedim(1 + axis, 0)[..., start[0] : start[0] + size[0], start[1] : start[1] + size[1]]
    plane = neighbouring_slices(slices[None], torch.tensor([index]), neighbours)[0]
    padding = centre_padding(plane.shape[1:], size)
    return F.pad(plane, padding) if any(padding) else plane


def each_axis(axis: int | Sequence[int]) -> tuple[int, ...]:
    """Return one or several axes of a volume as a tuple.

    Raises:
        ConfigError: if there is no axis, a repeated one, or one that is not 0, 1 or 2.
    """
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if not axes or len(set(axes)) < len(axes) or not set(axes) <= {0, 1, 2}:
        raise ConfigError(
            f"axis is {axis}, expected 0, 1 or 2, the axis of the volume that is cut into slices, or a list of them."
        )
    return axes


class SlicesWithContentd(MapTransform):
    """Store the indices of nonzero slices as ``<key>_slices`` for ``RandSlicesd``.

    Use it as the last cached transform, so that the volume is searched only once, or after random spatial transforms.
    It also makes each slice contiguous in memory for fast access; the shape stays (C, H, W, D). The dataset must keep
    that memory order (MONAI's ``CacheDataset``: ``as_contiguous=False``).

    Args:
        keys: volumes (C, H, W, D).
        axis: slicing axis, or several; slices along the first are contiguous in memory.
        allow_missing_keys: whether to skip missing keys.
    """

    def __init__(self, keys: KeysCollection, axis: int | Sequence[int] = 2, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.axes = each_axis(axis)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with slice indices beside each volume: for each axis an array."""
        result = dict(data)
        for key in self.key_iterator(result):
            first = 1 + self.axes[0]
            result[key] = torch.as_tensor(result[key]).movedim(first, 0).contiguous().movedim(0, first)
            held = (result[key] != 0).any(0)
            result[f"{key}_slices"] = {
                axis: np.flatnonzero(held.any(max(other)).any(min(other)).numpy())
                for axis in self.axes
                for other in [{0, 1, 2} - {axis}]
            }
        return result


class RandSlicesd(Randomizable, MapTransform):
    """Draw several random slices from a volume, each with a random window in the plane.

    The paper uses 160x160 windows of axial slices: Xue et al. (2018), Section 3. Use it after the cached transforms.
    The result is a list of ``num_samples`` samples, as from MONAI's ``Rand*CropSamplesd``.

    Args:
        keys: volumes (C, H, W, D) to cut alike, for example ``["image", "label"]``, after ``SlicesWithContentd``.
        label_key: regions (K, H, W, D); a slice that holds any of them is a foreground slice.
        num_samples: slices per volume.
        roi_size: rows and columns of a window, at most the plane or padded with zeros to this size.
        axis: the axis cut into slices; of several, each slice has one at random, so that one network learns all
            directions (see ``VolumeSliceInferer``).
        foreground_probability: probability of drawing a foreground slice; otherwise, any slice with image content is
            drawn, with or without foreground [ours; paper: all slices with equal probability, which is 0].
        image_key: image (C, H, W, D) whose empty slices are never drawn.
        mask_key: where the label is known (K, H, W, D), if it is known in part: other slices are never drawn.
        neighbours: number of slices on each side that become channels of the image, see ``neighbouring_slices``. The
            network then has ``(2 * neighbours + 1) * C`` input channels; give ``VolumeSliceInferer`` the same number.
        mirror_axes: axes of the volume along which each sample is mirrored with probability 0.5, see
            ``mirror_slices``; give ``VolumeSliceInferer`` the same axes.
        allow_missing_keys: whether to skip missing keys. Without a label, all slices are drawn uniformly.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        num_samples: int,
        roi_size: Sequence[int],
        axis: int | Sequence[int] = 2,
        foreground_probability: float = 0.5,
        image_key: str = "image",
        neighbours: int = 0,
        mirror_axes: Sequence[int] = (),
        allow_missing_keys: bool = False,
        mask_key: str = "mask",
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if not 0 <= foreground_probability <= 1:
            raise ConfigError(f"foreground_probability is {foreground_probability}, expected a number from 0 to 1.")
        if num_samples < 1:
            raise ConfigError(f"num_samples is {num_samples}, expected at least 1 slice per volume.")
        if neighbours < 0:
            raise ConfigError(f"neighbours is {neighbours}, expected 0 or more slices on each side.")
        self.label_key = label_key
        self.image_key = image_key
        self.mask_key = mask_key
        self.num_samples = num_samples
        self.roi_size = tuple(roi_size)
        self.axes = each_axis(axis)
        self.foreground_probability = foreground_probability
        self.neighbours = neighbours
        self.mirror_axes = each_mirror_axis(mirror_axes)

    def randomize(self, data: Mapping[Hashable, Any]) -> list[tuple[int, int, list[int], list[int], bool]]:
        """Draw axes, slice indices, window starts and mirrored axes, and whether any slice could be drawn."""
        shape = data[self.image_key].shape[1:]
        samples = []
        for _ in range(self.num_samples):
            axis = self.axes[0] if len(self.axes) == 1 else int(self.R.choice(self.axes))
            foreground, content = (self._slices(data, key, axis) for key in (self.label_key, self.image_key))
            known = data.get(f"{self.mask_key}_slices")
            if known is not None and len(known[axis]):
                content = inside if len(inside := np.intersect1d(content, known[axis])) else known[axis]
            if not len(content):
                content = np.arange(shape[axis])
            favoured = len(foreground) and self.R.random() < self.foreground_probability
            index = int(self.R.choice(foreground if favoured else content))
            plane = [n for i, n in enumerate(shape) if i != axis]
            start = [int(self.R.randint(0, max(n - s, 0) + 1)) for n, s in zip(plane, self.roi_size, strict=True)]
            mirrored = [mirror for mirror in self.mirror_axes if self.R.random() < 0.5]
            samples.append((axis, index, start, mirrored, not favoured))
        return samples

    def _slices(self, data: Mapping[Hashable, Any], key: str, axis: int) -> Any:
        """Return the indices of nonzero slices; none if the case lacks the key and may do so."""
        return [] if self.allow_missing_keys and key not in data else data[f"{key}_slices"][axis]

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return ``num_samples`` dictionaries: plain tensors (C, rows, columns) under ``keys``, and the case's name.

        ``uniform`` is false for slices that were drawn because they have foreground.
        """
        volumes = {key: convert_to_tensor(data[key], track_meta=False) for key in self.key_iterator(dict(data))}
        name: dict[Hashable, Any] = {"case": data["case"]} if "case" in data else {}
        beside = {key: self.neighbours if key == self.image_key else 0 for key in volumes}
        samples = []
        for axis, index, start, mirrored, uniform in self.randomize(data):
            cut = {k: cut_slice(v, axis, index, start, self.roi_size, beside[k]) for k, v in volumes.items()}
            cut = {k: mirror_slices(v, mirrored, axis, beside[k]) for k, v in cut.items()}
            samples.append({**name, "uniform": uniform, **cut})
        return samples
