# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Affine and elastic deformation of all slices of a batch at once, on its device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.transforms import Identityd, OneOf, Rand2DElasticd, RandAffined
from monai.transforms.utils import create_control_grid, create_grid
from monai.utils import ensure_tuple, ensure_tuple_rep
from torch import Tensor

from segan_monai.errors import ConfigError


def resample(slices: Tensor, points: Tensor, mode: str, padding_mode: str = "zeros") -> Tensor:
    """Return the values of slices at given points, as MONAI's ``Resample`` does for one image.

    Args:
        slices: (B, C, H, W) in float32.
        points: (B, 2, H', W'), row and column in pixels from the centre of the slice.
        mode: ``bilinear`` or ``nearest``.
        padding_mode: values outside, see ``torch.nn.functional.grid_sample``.

    Returns:
        (B, C, H', W').
    """
    rows, columns = (points[:, axis] * (2 / max(2, side)) for axis, side in enumerate(slices.shape[2:]))
    grid = torch.stack([columns, rows], dim=-1)  # grid_sample takes x, y
    return F.grid_sample(slices, grid, mode=mode, padding_mode=padding_mode, align_corners=False)


def affine_matrices(rotate: Tensor, shear: Tensor, translate: Tensor, scale: Tensor) -> Tensor:
    """Return matrices that map points of the result to points of the image, as MONAI's ``AffineGrid`` makes them.

    Args:
        rotate: angles (B,) in radians.
        shear: (B, 2).
        translate: (B, 2) in pixels.
        scale: (B, 2); above 1, the content becomes smaller.

    Returns:
        (B, 3, 3), the product of rotation, shear, translation and scale.
    """
    rotation, shearing, translation, scaling = torch.eye(3).repeat(4, len(rotate), 1, 1)
    cos, sin = rotate.cos(), rotate.sin()
    rotation[:, 0, 0], rotation[:, 0, 1], rotation[:, 1, 0], rotation[:, 1, 1] = cos, -sin, sin, cos
    along_rows, along_columns = shear.unbind(1)  # one after the other, which preserves areas
    shearing[:, 0, 1], shearing[:, 1, 0], shearing[:, 1, 1] = along_rows, along_columns, 1 + along_rows * along_columns
    translation[:, 0, 2], translation[:, 1, 2] = translate.unbind(1)
    scaling[:, 0, 0], scaling[:, 1, 1] = scale.unbind(1)
    return rotation @ shearing @ translation @ scaling


def moved(points: Tensor, matrices: Tensor) -> Tensor:
    """Return points (B or 1, 2, h, w) moved by matrices (B, 3, 3).

    Without a matrix product, which TF32 would round to ten bits, an error of a tenth of a pixel.
    """
    of_row, of_column, shift = matrices[:, :2, :, None, None].unbind(2)
    return of_row * points[:, :1] + of_column * points[:, 1:] + shift


def affine_points(matrices: Tensor, size: Sequence[int]) -> Tensor:
    """Return the point of the image for each pixel of a result of ``size``: (B, 2, *size), see ``affine_matrices``."""
    pixels = create_grid(size, homogeneous=False, device=matrices.device, backend="torch")
    return moved(torch.as_tensor(pixels, dtype=matrices.dtype)[None], matrices)


def elastic_points(control: Tensor, size: Sequence[int], spacing: Sequence[int]) -> Tensor:
    """Return the same for slices that are bent, as MONAI's ``Rand2DElastic`` interpolates control points.

    Args:
        control: (B, 2, h, w), displaced and moved control points, see ``control_points``.
        size: rows and columns of the result.
        spacing: rows and columns between control points.
    """
    points = F.interpolate(
        control, scale_factor=list(spacing), mode="bicubic", align_corners=False, recompute_scale_factor=True
    )
    rows, columns = (
        slice(start := max(found // 2 - wanted // 2, 0), start + wanted)
        for found, wanted in zip(points.shape[2:], size, strict=True)
    )
    return points[:, :, rows, columns]


def control_points(size: Sequence[int], spacing: Sequence[int]) -> Tensor:
    """Return the regular control points of an elastic deformation, (2, h, w) in pixels from the centre."""
    points = create_control_grid(size, spacing, homogeneous=False, backend="torch")
    return torch.as_tensor(points).float()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a few values that were drawn on the host; the host does not wait for a GPU."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


class BatchDeformation:
    """Deform the slices of a batch, each at random and by itself; the keys of a sample move together.

    The distribution is that of the given transform applied to each sample. Choices and parameters are drawn on the
    host, by torch's generator, so that only the chosen slices are computed and the host does not wait for a GPU.

    Args:
        transform: ``RandAffined``, ``Rand2DElasticd``, or ``OneOf`` of these and ``Identityd``.

    Raises:
        ConfigError: The transform has another type or changes the size.
    """

    def __init__(self, transform: Any) -> None:
        several = isinstance(transform, OneOf)
        transforms = list(transform.transforms) if several else [transform]
        weights = list(transform.weights) if several else [1.0]
        for step in transforms:
            inner = getattr(step, "rand_affine", None) or getattr(step, "rand_2d_elastic", None)
            if not isinstance(step, Identityd | RandAffined | Rand2DElasticd) or getattr(inner, "spatial_size", None):
                raise ConfigError(
                    f"{type(step).__name__} cannot deform whole batches. Expected RandAffined or Rand2DElasticd "
                    "without spatial_size, Identityd, or OneOf of these; changes of intensities as EachModalityd of "
                    "RandGaussianNoise, RandSimulateLowResolution and others. Set augment_on_device to false to "
                    "augment in the loader."
                )
        deforming = [(step, w) for step, w in zip(transforms, weights, strict=True) if not isinstance(step, Identityd)]
        self.transforms = [step for step, _ in deforming]
        shares = [weight * step.prob for step, weight in deforming]
        self.shares = torch.tensor([*shares, max(0.0, 1 - sum(shares))])

    def __call__(self, batch: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
        """Return the batch, of tensors (B, C, H, W) in float32 on one device, with deformed slices."""
        result = dict(batch)
        count = len(next(iter(batch.values())))
        kinds = torch.multinomial(self.shares, count, replacement=True)
        for kind, transform in enumerate(self.transforms):
            rows = (kinds == kind).nonzero().flatten()
            keys = [key for key in transform.keys if key in batch]
            if not len(rows) or not keys:
                continue
            first = batch[keys[0]]
            points = _draw_points(transform, len(rows), first.shape[2:], first.device)
            rows = to_device(rows, first.device)
            for key, mode, padding_mode in zip(transform.keys, transform.mode, transform.padding_mode, strict=True):
                if key in keys:
                    changed = resample(result[key][rows], points, str(mode), str(padding_mode))
                    result[key] = result[key].index_copy(0, rows, changed)
        return result


def _draw_points(transform: Any, count: int, size: Sequence[int], device: torch.device) -> Tensor:
    """Return the points of ``count`` slices, drawn as the transform draws them for one."""
    elastic = isinstance(transform, Rand2DElasticd)
    inner = transform.rand_2d_elastic if elastic else transform.rand_affine
    ranges = inner.rand_affine_grid
    matrices = affine_matrices(
        _uniform(ranges.rotate_range, count, 1)[:, 0],
        _uniform(ranges.shear_range, count, 2),
        _uniform(ranges.translate_range, count, 2),
        1 + _uniform(ranges.scale_range, count, 2),
    )
    if not elastic:
        return affine_points(to_device(matrices, device), size)
    spacing = [int(step) for step in ensure_tuple_rep(inner.deform_grid.spacing, 2)]
    low, high = inner.deform_grid.magnitude
    control = control_points(size, spacing)
    magnitude = low + (high - low) * torch.rand(count, 1, 1, 1)
    control = moved(control + torch.randn(count, *control.shape) * magnitude, matrices)
    return elastic_points(to_device(control, device), size, spacing)


def _uniform(ranges: Any, count: int, length: int) -> Tensor:
    """Return (count, length) numbers of MONAI's ranges: f for [-f, f] or a pair; 0 where there is no range."""
    drawn = torch.zeros(count, length)
    for index, given in enumerate(ensure_tuple(ranges)[:length]):
        if given is None:
            continue
        low, high = given if isinstance(given, Sequence) else (-given, given)
        drawn[:, index] = low + (high - low) * torch.rand(count)
    return drawn
