# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Scaling of intensities of whole heads, whose background is noise instead of 0."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, generate_spatial_bounding_box
from monai.utils import convert_to_tensor
from torch import Tensor

from segan_monai.errors import DataError

NOISE_LEVEL = 0.1
"""Voxels that are not 0 but below this fraction of the head's median are noise of the background [ours]."""
NOISY_SHARE = 0.1
"""Images with a larger fraction of such voxels are not skull-stripped [ours; measured: up to 0.05 in images of the
brain alone, 0.2 to 0.6 in most heads]."""


def head_mask(image: np.ndarray) -> np.ndarray:
    """Return the voxels (C, H, W, D) above their channel's mean; a channel with one value in all voxels has none."""
    masks = [channel > channel.mean(dtype=np.float64) for channel in image]
    constant = [channel.size == 0 or channel.min() == channel.max() for channel in image]
    return np.stack([np.zeros_like(mask) if none else mask for mask, none in zip(masks, constant, strict=True)])


def noise_share(channel: np.ndarray) -> float:
    """Return the fraction of a channel's voxels that hold noise of the background, see ``NOISE_LEVEL``."""
    (head,) = head_mask(channel[None])
    if not head.any():
        return 0.0
    return float(((channel != 0) & (channel < NOISE_LEVEL * np.median(channel[head]))).mean())


def scale_head(image: Tensor) -> Tensor:
    """Scale the median of the head to 0.5, channel by channel, and clip to [0, 2].

    The head of a channel is the voxels above the channel's mean: air and the darkest tissue are below it. Voxels
    outside the bounding box of all channels' heads become 0, as the background of a skull-stripped image is. Steps that
    crop to nonzero voxels or skip empty slices then see the head. Noise within the box remains. Intensities are not
    negative, because SegAN's critic multiplies them by label maps. [ours]

    Args:
        image: (C, H, W, D) with finite voxels; apply it to the whole image, since the mean depends on cropping.

    Returns:
        float32 image of the same shape; a channel with one value in all voxels is 0.

    Raises:
        DataError: The median of a head is not positive, so the image does not hold magnitudes.
    """
    result = torch.zeros_like(image, dtype=torch.float32)
    heads = head_mask(image.float().numpy())
    for number, (channel, head, scaled) in enumerate(zip(image.float(), heads, result, strict=True)):
        if not head.any():
            continue
        median = float(np.median(channel.numpy()[head]))
        if median <= 0:
            raise DataError(
                f"channel {number} has a median of {median:g} within the head (voxels above the mean). Expected "
                "magnitudes, which are 0 or more, because skull_stripped is false. Export the image again without "
                "standardizing it, or set intensity_window."
            )
        torch.div(channel, 2 * median, out=scaled).clamp_(0, 2)
    if heads.any():
        start, end = generate_spatial_bounding_box(torch.from_numpy(heads))
        outside = torch.ones(image.shape[1:], dtype=torch.bool)
        outside[tuple(slice(first, last) for first, last in zip(start, end, strict=True))] = False
        result[:, outside] = 0
    return result


class ScaleHeadd(MapTransform):
    """Dictionary version of ``scale_head``; keeps the metadata.

    Args:
        keys: images (C, H, W, D).
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with scaled images.

        Raises:
            DataError: See ``scale_head``; the message names the case.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            image: MetaTensor = convert_to_tensor(result[key], track_meta=True)
            scaled = image.clone()
            try:
                scaled.set_array(scale_head(image.as_tensor()))
            except DataError as error:
                raise DataError(f"case {result.get('case', '')}: {error}") from error
            result[key] = scaled
        return result
