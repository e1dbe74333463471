# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Surface distances between masks, in mm."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import ndimage
from scipy.spatial import cKDTree

from segan_monai.grids import voxel_steps
from segan_monai.metrics.overlap import as_masks


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the bounding box of a boolean mask with a margin of one voxel, clipped to the image."""
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(max(occupied[0] - 1, 0), occupied[-1] + 2) if occupied.size else slice(0, 0))
    return tuple(box)


def surface_distances(
    prediction: np.ndarray | torch.Tensor, reference: np.ndarray | torch.Tensor, spacing_mm: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the distance of every surface voxel of one mask to the nearest surface voxel of the other.

    A surface voxel belongs to the mask and has a face neighbour outside it or outside the image, as in
    ``monai.metrics.utils.get_mask_edges``. Axes of length 1 are dropped: a single slice has a contour, not two faces.
    Distances are between voxel centres. A k-d tree over the surface voxels gives the same distances as a distance map,
    usually several times faster.

    Args:
        prediction: nonempty mask of shape ``(H, W[, D])``, array or tensor.
        reference: nonempty mask of the same shape.
        spacing_mm: spacing along each axis of the masks, in mm; or an affine, which may be sheared.

    Returns:
        Distances in mm from the prediction's surface to the reference's, and from the reference's to the prediction's.

    Raises:
        ValueError: if the shapes differ, a mask is empty, or the length of ``spacing_mm`` is not the number of axes.
    """
    prediction, reference = as_masks(prediction, reference)
    steps = voxel_steps(spacing_mm)
    if steps.shape[1] != prediction.ndim:
        given = np.asarray(spacing_mm).tolist()
        raise ValueError(f"spacing_mm {given} has {steps.shape[1]} axes, the masks have {prediction.ndim}")
    if not prediction.any() or not reference.any():
        raise ValueError("an empty mask has no surface")
    steps = steps[:, [length > 1 for length in prediction.shape]]
    if not steps.size:  # an image of one voxel
        return np.zeros(1), np.zeros(1)
    prediction, reference = prediction.squeeze(), reference.squeeze()
    box = bounding_box(prediction | reference)
    points = [np.argwhere(mask ^ ndimage.binary_erosion(mask)) @ steps.T for mask in (prediction[box], reference[box])]
    trees = [cKDTree(of_mask) for of_mask in points]
    return trees[1].query(points[0])[0], trees[0].query(points[1])[0]


def surface_metrics(
    prediction: np.ndarray | torch.Tensor, reference: np.ndarray | torch.Tensor, spacing_mm: ArrayLike | None
) -> dict[str, float]:
    """Compute the 95th percentile Hausdorff distance (HD95) and the average symmetric surface distance (ASSD).

    HD95 is the larger of the two directed 95th percentiles (linear interpolation); ASSD is the mean over the distances
    of both surfaces. Both follow MONAI's definitions: ``compute_hausdorff_distance`` with ``percentile=95`` and
    ``compute_average_surface_distance`` with ``symmetric=True``. Empty masks follow ``overlap.EMPTY_MASK_RULE``.

    Args:
        prediction: mask of shape ``(H, W[, D])``, array or tensor.
        reference: mask of the same shape.
        spacing_mm: spacing along each axis of the masks, in mm; or an affine, which may be sheared; None if unknown.

    Returns:
        The two distances in mm under the keys ``hd95_mm``, ``assd_mm``: infinite if exactly one mask is empty, NaN if
        neither is and the spacing is unknown.

    Raises:
        ValueError: if the shapes differ, or the length of ``spacing_mm`` is not the number of axes.
    """
    prediction, reference = as_masks(prediction, reference)
    if not prediction.any() or not reference.any():
        return dict.fromkeys(("hd95_mm", "assd_mm"), 0.0 if prediction.any() == reference.any() else float("inf"))
    if spacing_mm is None:
        return dict.fromkeys(("hd95_mm", "assd_mm"), float("nan"))
    to_reference, to_prediction = surface_distances(prediction, reference, spacing_mm)
    return {
        "hd95_mm": float(max(np.percentile(to_reference, 95), np.percentile(to_prediction, 95))),
        "assd_mm": float(np.concatenate((to_reference, to_prediction)).mean()),
    }
