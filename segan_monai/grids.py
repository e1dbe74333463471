# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Comparison of voxel grids, and voxel sizes for any affine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segan_monai.errors import DataError

GRID_TOLERANCE_VOXELS = 0.25
"""Maximum distance between corresponding corners of two volumes, in voxels along each axis [ours].

Headers store single precision: an entry rounded by 1e-4 moves the far corner of 512 voxels of 0.3 mm by 0.17 voxels,
and a quaternion near a half turn has a precision of about 0.0007 radians. A label map shifted by half a voxel, or
resampled to another spacing, clearly exceeds the tolerance.
"""
LEAST_SPACING_MM = 1e-4
LARGEST_EXTENT_MM = 1e4


class Grid(NamedTuple):
    """The voxel grid of a file.

    Attributes:
        name: name of the file, for messages.
        shape: (H, W, D), or (H, W) for a plane.
        affine: (4, 4), from voxel indices to mm in the RAS frame.
    """

    name: str
    shape: tuple[int, ...]
    affine: NDArray


def corner_distance(shape: Sequence[int], first: NDArray, second: NDArray) -> tuple[float, float]:
    """Return the largest distance between corresponding corner voxels of two volumes of one shape.

    Args:
        shape: (H, W, D), or (H, W) for a plane.
        first: affine (4, 4), in mm.
        second: affine (4, 4), in mm.

    Returns:
        Distance in voxels of ``first``, along the axis where it is largest, and in mm; NaN if an affine contains NaN.
    """
    corners = np.array([(*corner, 1.0) for corner in product(*((0, length - 1) for length in (*shape, 1, 1)[:3]))])
    apart_mm = (corners @ (second - first).T)[:, :3]
    apart_voxels = np.linalg.solve(first[:3, :3], apart_mm.T)
    return float(np.abs(apart_voxels).max()), float(np.linalg.norm(apart_mm, axis=1).max())


def spans_space(shape: Sequence[int], affine: NDArray) -> bool:
    """Return whether an affine is finite and invertible, with voxels and an extent that a scanner can produce.

    Args:
        shape: (H, W, D), or (H, W) for a plane.
        affine: affine (4, 4), in mm.
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or sizes.min() < LEAST_SPACING_MM:
        return False
    extents = sizes * (*shape, 1, 1)[:3]
    return bool(extents.max() <= LARGEST_EXTENT_MM and abs(np.linalg.det(affine[:3, :3] / sizes)) > 0.01)


def check_same_grid(first: Grid, second: Grid, how: str = "") -> None:
    """Check that two volumes have the same grid.

    Args:
        first: grid of the first volume.
        second: grid of the second volume.
        how: addition to the remedy in the message, such as the interpolation to use.

    Raises:
        DataError: if the shapes differ, or corner voxels are more than ``GRID_TOLERANCE_VOXELS`` apart.
    """
    remedy = (
        "They must lie on one grid: register and resample one to the other, for example with SimpleITK "
        f"(sitk.Resample) or ANTs (antsApplyTransforms){', ' if how else ''}{how}."
    )
    if first.shape != second.shape:
        raise DataError(f"{first.name} has shape {first.shape}, but {second.name} has {second.shape}. {remedy}")
    voxels, mm = corner_distance(first.shape, first.affine, second.affine)
    if not voxels <= GRID_TOLERANCE_VOXELS:  # NaN is an error too
        affines = [np.round(grid.affine[:3], 4).tolist() for grid in (first, second)]
        raise DataError(
            f"{first.name} has affine {affines[0]}, but {second.name} has {affines[1]}: corners of the volumes lie up "
            f"to {mm:.3g} mm apart, {voxels:.3g} voxels (tolerance {GRID_TOLERANCE_VOXELS:g} voxels). {remedy}"
        )


def voxel_steps(spacing_or_affine: ArrayLike) -> NDArray:
    """Return the matrix whose columns are the steps, in mm, between adjacent voxels along each axis.

    Args:
        spacing_or_affine: spacing (N,) in mm along each axis, or an affine (N, N) or (4, 4).

    Returns:
        (N, N); its determinant is the volume of a voxel. For a spacing it is diagonal.
    """
    given = np.asarray(spacing_or_affine, dtype=float)
    if given.ndim == 1:
        return np.diag(given)
    return given[:3, :3]
