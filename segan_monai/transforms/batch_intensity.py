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
    RandAdjustContrastd,
    RandGaussianNoise,
    RandGaussianNoised,
    RandScaleIntensity,
    RandScaleIntensityd,
    RandSimulateLowResolution,
)
from torch import Tensor

from segan_monai.errors import ConfigError
from segan_monai.transforms.batch_deformation import to_device
from segan_monai.transforms.each_modality import EachModalityd
from segan_monai.transforms.rand_contrast import PERCENTILES, RandContrastCurve, RandContrastCurved

DICTIONARY_VERSIONS: dict[type, str] = {
    RandAdjustContrastd: "adjuster",
    RandContrastCurved: "curve",
    RandGaussianNoised: "rand_gaussian_noise",
    RandScaleIntensityd: "scaler",
}
"""Transforms of all channels alike, and the attribute that holds their transform of an array."""


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


def map_by_curves(x: Tensor, levels: Tensor) -> Tensor:
    """Return images (B, N, H, W) mapped by curves with ``levels`` (B, knots), as ``map_intensities`` maps one."""
    inside = x != 0
    # filled on the device: the host would wait for a copy
    shares = torch.stack([torch.full((), share / 100, device=x.device) for share in PERCENTILES])
    ends = x.masked_fill(~inside, torch.nan).flatten(1).float().nanquantile(shares, dim=1).nan_to_num(0)
    low, high = ends.to(x.dtype).view(2, -1, 1, 1, 1)
    length = high - low  # 0 in an image of one intensity or none
    last = levels.shape[1] - 1
    place = ((x - low) / length).masked_fill(~inside | (length <= 0), 0).clamp(0, 1) * last
    first = place.floor().clamp(0, last - 1)
    at_first, at_next = (levels.gather(1, knot.long().flatten(1)).view_as(x) for knot in (first, first + 1))
    found = at_first.lerp(at_next, place - first)
    mean, deviation = _statistics(found, inside)
    wanted_mean, wanted_deviation = _statistics(x, inside)
    mapped = (found - mean) / deviation.clamp(min=1e-12) * wanted_deviation + wanted_mean
    return torch.where(inside & (length > 0) & (deviation > 1e-6), mapped, x)


def _statistics(x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the pixels inside, per image."""
    count = inside.sum((1, 2, 3), keepdim=True).clamp(min=1)
    mean = (x * inside).sum((1, 2, 3), keepdim=True) / count
    return mean, (((x - mean) * inside).square().sum((1, 2, 3), keepdim=True) / count).sqrt()


class BatchIntensity:
    """Change the intensities of each modality of each sample at random, but of its neighbouring slices alike.

    The distribution is that of the given transform applied to each sample. Choices and parameters are drawn on the
    host, by torch's generator, and noise on the device.

    Args:
        transform: ``EachModalityd`` with ``RandGaussianNoise``, ``RandSimulateLowResolution``, ``RandAdjustContrast``,
            ``RandScaleIntensity``, ``RandContrastCurve``, or ``Compose`` of them; or the dictionary version of one,
            which changes all channels alike.

    Raises:
        ConfigError: Another transform, or a setting that works on single images only.
    """

    def __init__(self, transform: Any) -> None:
        self.modalities = 1
        if isinstance(transform, EachModalityd):
            self.modalities, inner = transform.modalities, transform.transform
            self.steps: list[Any] = list(inner.transforms) if isinstance(inner, Compose) else [inner]
            self.shares = [getattr(step, "prob", 1.0) for step in self.steps]
        else:
            self.steps = [getattr(transform, DICTIONARY_VERSIONS.get(type(transform), ""), transform)]
            self.shares = [self.steps[0].prob * transform.prob]
        for step in self.steps:
            _check(step)
        self.keys = transform.keys

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
            for step, share in zip(self.steps, self.shares, strict=True):
                rows = (torch.rand(len(images)) < share).nonzero().flatten()
                if len(rows):
                    drawn, rows = _draw(step, len(rows)), to_device(rows, images.device)
                    changed = _change(step, images[rows], to_device(drawn, images.device))
                    images = images.index_copy(0, rows, changed)
            result[key] = images.unflatten(0, (count, self.modalities)).transpose(1, 2).flatten(1, 2)
        return result


def _check(step: Any) -> None:
    known = RandGaussianNoise | RandSimulateLowResolution | RandAdjustContrast | RandScaleIntensity | RandContrastCurve
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
            "RandGaussianNoise, RandAdjustContrast, RandScaleIntensity, RandContrastCurve, or "
            "RandSimulateLowResolution with downsample_mode nearest and upsample_mode bilinear. Set augment_on_device "
            "to false to augment in the loader."
        )


def _draw(step: Any, count: int) -> Tensor:
    """Return the parameter of each image as the transform draws it: deviation, zoom, gamma, factor or curve."""
    if isinstance(step, RandContrastCurve):
        return torch.rand(count, step.knots)
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
    if isinstance(step, RandContrastCurve):
        return map_by_curves(images, drawn)
    return images * (1 + _per_image(drawn))


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
