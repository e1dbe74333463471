# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Corruptions of raw volumes, to measure what the quality estimate makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.transforms import (
    AdjustContrast,
    Flip,
    GaussianSmooth,
    RandBiasField,
    RandGaussianNoise,
    RandSpatialCrop,
    ResizeWithPadOrCrop,
    ScaleIntensity,
)
from monai.transforms.utils_pytorch_numpy_unification import percentile
from torch import Tensor

Corruption = Callable[[Tensor, int], Tensor]
"""From a volume (C, H, W, D) and a seed to the corrupted volume of the same shape."""

NOISE = 0.15
BIAS = 0.3
GAMMA = 3.0
SIGMA = 2.0


def noise(image: Tensor, seed: int) -> Tensor:
    """Add Gaussian noise of ``NOISE`` times the 99th percentile to the voxels that are not 0."""

    def of_values(values: Tensor, number: int) -> Tensor:
        std = NOISE * float(percentile(values.float(), 99))
        return RandGaussianNoise(prob=1, std=std, sample_std=False).set_random_state(seed + number)(values)

    return _of_content(image, of_values)


def contrast(image: Tensor, seed: int) -> Tensor:
    """Raise the intensities of the voxels that are not 0, scaled to 0 to 1, to the power ``GAMMA``."""
    return _of_content(image, lambda values, _: AdjustContrast(GAMMA)(values))


def inverted(image: Tensor, seed: int) -> Tensor:
    """Exchange high and low intensities of the voxels that are not 0, as another modality might."""
    return _of_content(image, lambda values, _: ScaleIntensity(float(values.max()), float(values.min()))(values))


def _of_content(image: Tensor, change: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply a change of values (1, N) to the voxels of each channel that are not 0."""
    result = image.clone()
    for number, channel in enumerate(result):
        inside = channel != 0
        if inside.any():
            channel[inside] = change(channel[inside][None], number)[0]
    return result


def bias_field(image: Tensor, seed: int) -> Tensor:
    """Multiply by the exponential of a cubic polynomial with coefficients from -``BIAS`` to ``BIAS``."""
    return RandBiasField(degree=3, coeff_range=(-BIAS, BIAS), prob=1).set_random_state(seed)(image)


def blur(image: Tensor, seed: int) -> Tensor:
    """Smooth with a standard deviation of ``SIGMA`` voxels; voxels that are 0 stay so."""
    return GaussianSmooth(SIGMA)(image) * (image != 0)


def half_empty(image: Tensor, seed: int) -> Tensor:
    """Set the second half along the first axis to 0, as a wrong crop does."""
    result = image.clone()
    result[:, image.shape[1] // 2 :] = 0
    return result


def missing_slices(image: Tensor, seed: int) -> Tensor:
    """Set every other slice of the last axis to 0, beginning with the second."""
    result = image.clone()
    result[..., 1::2] = 0
    return result


def flip_axis_1(image: Tensor, seed: int) -> Tensor:
    """Mirror along the second axis, which is front to back in files stored as RAS."""
    return Flip(1)(image)


def flip_axis_2(image: Tensor, seed: int) -> Tensor:
    """Mirror along the third axis, which is upside down in files stored as RAS."""
    return Flip(2)(image)


INTENSITIES: tuple[Corruption, ...] = (
    noise,
    bias_field,
    contrast,
    blur,
    half_empty,
    missing_slices,
    inverted,
)
"""Corruptions of the image alone."""
GEOMETRY: tuple[Corruption, ...] = (flip_axis_1, flip_axis_2)
"""Corruptions of image and label map alike."""


def cut_to_grid(other: Tensor, like: Tensor, seed: int) -> Tensor:
    """Return a random part of one channel of another volume in the shape of ``like`` (C, H, W, D), padded with 0."""
    shape = tuple(like.shape[1:])
    part = RandSpatialCrop(shape, random_size=False).set_random_state(seed)(other[:1])
    return torch.as_tensor(ResizeWithPadOrCrop(shape)(part)).expand(like.shape)
