# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Volumes of the regions of a label map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from segan_monai.grids import voxel_steps


def region_volumes(label_map: np.ndarray, affine: ArrayLike, regions: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Compute the volume of each region in ml.

    Args:
        label_map: integers of shape ``(H, W, D)``.
        affine: ``(4, 4)``, from voxel indices to mm.
        regions: label values of every region.
    """
    voxel_ml = abs(float(np.linalg.det(voxel_steps(affine)))) / 1000
    counts = np.bincount(label_map.ravel().astype(np.int64))
    return {
        region: float(sum(counts[value] for value in set(values) if value < len(counts))) * voxel_ml
        for region, values in regions.items()
    }
