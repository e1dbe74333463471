# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Random intensity changes of all slices of a batch at once, on its device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandGaussianNoise,
    RandScaleIntensity,
    RandSimulateLowResolution,
)
from torch import Tensor

from segan_monai.errors import ConfigError
from segan_monai.transforms.batch_deformation import chosen, to_device
from segan_monai.transforms.each_modality import EachModalityd


def adjust_contrast(x: Tensor, gamma: Tensor) -> Tensor:
    """Return images (B, N, H, W) to the power of ``gamma`` (B,) within each one's range, as ``AdjustContrast`` does."""
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return ((x - low) / (high - low + 1e-7)) ** _per_image(gamma) * (high - low) + low


def simulate_low_resolution(x: Tensor, zoom: Tensor) -> Tensor:
    """Return images (B, N, H, W) sampled at ``zoom`` (B,) times their size and enlarged bilinearly again.

    It equals ``RandSimulateLowResolution`` of MONAI with the modes ``nearest`` and ``bilinear``, though each image has
    its own size in between: each pixel of the result is a weighted sum of pixels of the image.
    """
    for dim in (2, 3):
        length = x.shape[dim]
        small = (length * zoom.double()).round().clamp(min=1).to(torch.float32)[:, None]
        place = ((torch.arange(length, device=x.device) + 0.5) * (small / length) - 0.5).clamp(min=0)
        before = place.floor().minimum(small - 1)
        weight = (place - before).clamp(max=1)
        after = (before + 1).minimum(small - 1)
        shape = [len(x), 1, 1, 1]
        shape[dim] = length
        left, right = (
            x.gather(dim, (near * (length / small)).long().clamp(max=length - 1).view(shape).expand_as(x))
            for near in (before, after)
        )
        x = left.lerp(right, weight.view(shape))
    return x


class BatchIntensity:
    """Change the intensities of each modality of each sample at random, but of its neighbouring slices alike.

    The distribution is that of ``EachModalityd`` applied to each sample. Choices and parameters are drawn on the host,
    by torch's generator, and noise on the device.

    Args:
        transform: ``EachModalityd`` with ``RandGaussianNoise``, ``RandSimulateLowResolution``, ``RandAdjustContrast``,
            ``RandScaleIntensity``, or ``Compose`` of them.

    Raises:
        ConfigError: Another transform, or a setting that works on single images only.
    """

    def __init__(self, transform: EachModalityd) -> None:
        self.keys, self.modalities = transform.keys, transform.modalities
        inner = transform.transform
        self.steps: list[Any] = list(inner.transforms) if isinstance(inner, Compose) else [inner]
        for step in self.steps:
            _check(step)

    def __call__(self, batch: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
        """Return the batch, of tensors (B, N * C, H, W) in float32 on one device, with changed images.

        Raises:
            ConfigError: The number of channels is not a multiple of the modalities.
        """
        result = dict(batch)
        for key in self.keys:
            if key not in batch:
                continue
            count, channels = batch[key].shape[:2]
            if channels % self.modalities:
                raise ConfigError(
                    f"'{key}' has {channels} channels, expected a multiple of the {self.modalities} modalities. "
                    "Correct 'modalities' of EachModalityd."
                )
            images = batch[key].unflatten(1, (-1, self.modalities)).transpose(1, 2).flatten(0, 1)
            for step in self.steps:
                rows = chosen(torch.full((len(images),), float(step.prob)))
                if len(rows):
                    drawn, rows = _draw(step, len(rows)), to_device(rows, images.device)
                    changed = _change(step, images[rows], to_device(drawn, images.device))
                    images = images.index_copy(0, rows, changed)
            result[key] = images.unflatten(0, (count, self.modalities)).transpose(1, 2).flatten(1, 2)
        return result


def _check(step: Any) -> None:
    known = RandGaussianNoise | RandSimulateLowResolution | RandAdjustContrast | RandScaleIntensity
    single = [
        name for name in ("invert_image", "retain_stats", "channel_wise", "align_corners") if getattr(step, name, False)
    ]
    modes = {"downsample_mode": "nearest", "upsample_mode": "bilinear"}
    if isinstance(step, RandSimulateLowResolution):
        single += [name for name, mode in modes.items() if str(getattr(step, name)) != mode]
    if not isinstance(step, known) or single:
        settings = ", ".join(f"{name} {getattr(step, name)}" for name in single)
        raise ConfigError(
            f"{type(step).__name__}{' with ' if single else ''}{settings} cannot change whole batches. Expected "
            "RandGaussianNoise, RandAdjustContrast, RandScaleIntensity, or RandSimulateLowResolution with "
            "downsample_mode nearest and upsample_mode bilinear. Set augment_on_device to false to augment in the "
            "loader."
        )


def _draw(step: Any, count: int) -> Tensor:
    """Return one parameter per image, drawn as the transform draws it: standard deviation, zoom, gamma or factor."""
    if isinstance(step, RandGaussianNoise):
        low, high = (0.0 if step.sample_std else step.std), step.std
    elif isinstance(step, RandSimulateLowResolution):
        low, high = step.zoom_range
    else:
        low, high = step.gamma if isinstance(step, RandAdjustContrast) else step.factors
    return low + (high - low) * torch.rand(count)


def _change(step: Any, images: Tensor, drawn: Tensor) -> Tensor:
    if isinstance(step, RandGaussianNoise):
        return images + step.mean + torch.randn_like(images) * _per_image(drawn)
    if isinstance(step, RandSimulateLowResolution):
        return simulate_low_resolution(images, drawn)
    if isinstance(step, RandAdjustContrast):
        return adjust_contrast(images, drawn)
    return images * (1 + _per_image(drawn))


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
