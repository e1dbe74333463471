# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Anatomy of phantoms: subjects drawn from the MNI152 brain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segan_monai.simulation.noise import Floats, blur, random_matrix, smooth_noise

_MNI_AT_CENTRE_MM = np.array([0.0, -17.0, 14.0])  # MNI152 point that comes to lie at the centre of the field of view
_MNI_ORIGIN = np.array([98, 134, 72], np.float32)  # voxel of the MNI152 maps, 1 mm wide, that is MNI's origin


@lru_cache(maxsize=2)
def _template(spacing_mm: float) -> dict[str, Floats]:
    """Return the MNI152 maps at 1 mm, blurred to the resolution of ``spacing_mm``; each float32 (197, 233, 189).

    ``t1`` (0 to 1), ``grey`` and ``white`` (fractions), ``depth`` (mm below the surface, at most 25) and ``around``
    (0 to 1, near the ventricles).
    """
    if spacing_mm > 1:
        return {name: blur(array, 0.4 * (spacing_mm - 1), 1.0) for name, array in _template(1.0).items()}
    from nilearn import datasets

    maps = {
        "t1": datasets.load_mni152_template(resolution=1),
        "grey": datasets.load_mni152_gm_template(resolution=1),
        "white": datasets.load_mni152_wm_template(resolution=1),
        "brain": datasets.load_mni152_brain_mask(resolution=1),
    }
    arrays = {name: np.asarray(image.dataobj, dtype=np.float32) for name, image in maps.items()}
    brain = arrays.pop("brain") > 0
    # The template ends below the brainstem; that cut is not a surface.
    arrays["depth"] = ndimage.distance_transform_edt(np.pad(brain, ((0, 0), (0, 0), (30, 0)), "edge"))[..., 30:]
    arrays["depth"] = np.minimum(arrays["depth"], 25).astype(np.float32)
    ventricles = (arrays["depth"] >= 25) & (arrays["grey"] + arrays["white"] < 0.3)
    arrays["around"] = np.clip(3 * ndimage.gaussian_filter(ventricles.astype(np.float32), 4), 0, 1)
    return arrays


@lru_cache(maxsize=1)
def tumour_sites() -> NDArray[np.float64]:
    """Return points of the deep cerebral white matter, where tumours start: (N, 3) in MNI mm, 3 mm apart."""
    white, depth = _template(1.0)["white"], _template(1.0)["depth"]
    sites = np.argwhere((white[::3, ::3, ::3] > 0.6) & (depth[::3, ::3, ::3] > 8)) * 3.0 - _MNI_ORIGIN
    x, y, z = sites.T
    brainstem_or_cerebellum = (z < -22) | ((y < -35) & (z < 2))
    return sites[~brainstem_or_cerebellum & (np.abs(x) > 6)]


@dataclass
class Head:
    """Brain of a subject on the grid of the simulated box.

    Attributes:
        mni: MNI coordinates in mm, (3, H, W, D).
        depth: mm below the surface, (H, W, D).
        brain: mask of the brain, (H, W, D).
        matrix: linear part of the map from the subject to MNI space, (3, 3).
        atrophy: grey value below which the template's T1 image becomes CSF.
        spacing_mm: edge of a voxel.
    """

    mni: Floats
    depth: Floats
    brain: NDArray[np.bool_]
    matrix: Floats
    atrophy: float
    spacing_mm: float

    def sample(self, name: str, shift_mm: Floats | None = None) -> Floats:
        """Return a map of the template on the subject, 0 outside the brain, displaced by ``shift_mm`` (3, H, W, D)."""
        points = self.mni[:, self.brain] + _MNI_ORIGIN[:, None]
        if shift_mm is not None:
            points += np.einsum("ij,jn->in", self.matrix, shift_mm[:, self.brain])
        image = np.zeros(self.brain.shape, np.float32)
        image[self.brain] = ndimage.map_coordinates(_template(self.spacing_mm)[name], points, np.float32, order=1)
        return image


def make_head(rng: np.random.Generator, axes: Sequence[Floats], spacing_mm: float) -> Head:
    """Draw a subject: a small affine map and a smooth deformation of the MNI152 brain, and the width of the sulci."""
    matrix = random_matrix(rng, scale=0.035, degrees=2.5).astype(np.float32)
    matrix[0, 0] *= rng.choice([-1, 1])  # left and right may be exchanged
    mni = np.empty((3, *(len(axis) for axis in axes)), np.float32)
    for row in range(3):
        x, y, z = (factor * axis for factor, axis in zip(matrix[row], axes, strict=True))
        mni[row] = x[:, None, None] + y[:, None] + z + np.float32(_MNI_AT_CENTRE_MM[row])
        mni[row] += 2.7 * smooth_noise(rng, axes, 45) + 1.4 * smooth_noise(rng, axes, 18)
    points = mni.reshape(3, -1) + _MNI_ORIGIN[:, None]
    depth = ndimage.map_coordinates(_template(spacing_mm)["depth"], points, np.float32, order=1).reshape(mni.shape[1:])
    return Head(mni, depth, depth > 0.5, matrix, rng.uniform(0.52, 0.62), spacing_mm)
