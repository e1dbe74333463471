# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Shape of single masks: connected components, and surface to volume. Smooth masks have few and low values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from segan_monai.grids import voxel_steps


def count_components(mask: np.ndarray) -> int:
    """Count the connected components of a boolean mask; voxels that share a face, an edge or a corner are connected.

    Examples:
        >>> count_components(np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], bool))
        1
    """
    return int(ndimage.label(mask, structure=np.ones((3,) * mask.ndim))[1])


def surface_to_volume(mask: np.ndarray, spacing_mm: ArrayLike | None) -> float:
    """Compute the area of all voxel faces between mask and background over the volume of the mask, per mm.

    Faces at the border of the image count. Areas of voxel faces exceed those of a smooth surface, by the same factor
    for prediction and reference.

    Args:
        mask: boolean mask (H, W) or (H, W, D); for an image (H, W), it is the perimeter over the area.
        spacing_mm: spacing along each axis, in mm; or an affine, which may be sheared; None if unknown.

    Returns:
        The ratio per mm; NaN if the mask is empty or the spacing is unknown.

    Examples:
        >>> surface_to_volume(np.ones((1, 1, 1), bool), [1, 1, 2])  # faces of 1, 1, 2, 2, 2 and 2 mm2
        5.0
    """
    voxels = np.count_nonzero(mask)
    if spacing_mm is None or not voxels:
        return float("nan")
    steps = voxel_steps(spacing_mm)
    gram = steps.T @ steps  # its principal minors are squared areas of voxel faces, its determinant a squared volume
    surface = 0.0
    for axis in range(mask.ndim):
        faces = np.count_nonzero(np.diff(np.pad(mask, [(int(i == axis),) * 2 for i in range(mask.ndim)]), axis=axis))
        others = [i for i in range(mask.ndim) if i != axis]
        surface += faces * np.sqrt(np.linalg.det(gram[np.ix_(others, others)]))
    return float(surface / (voxels * np.sqrt(np.linalg.det(gram))))
