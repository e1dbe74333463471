# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Random fields and maps that give phantoms their shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]

FIELD_OF_VIEW_MM = np.array([240.0, 240.0, 155.0])


def smooth_noise(rng: np.random.Generator, axes: Sequence[Floats], knot_mm: float) -> Floats:
    """Draw Gaussian noise of mean 0 and variance 1 at every point, smooth over about ``knot_mm``.

    Knots cover the whole field of view, so every part of it and every spacing sees the same field.

    Args:
        rng: draws one number per knot.
        axes: coordinates in mm along each of the three axes, 0 at the centre of the field of view.
        knot_mm: distance between the knots of the separable Gaussian basis.

    Returns:
        float32 of shape (len(axes[0]), len(axes[1]), len(axes[2])).
    """
    bases = []
    for axis, extent in zip(axes, FIELD_OF_VIEW_MM, strict=True):
        half = int(np.ceil(extent / 2 / knot_mm)) + 2
        knots = knot_mm * np.arange(-half, half + 1)
        basis = np.exp(-0.5 * ((axis[:, None] - knots) / (0.8 * knot_mm)) ** 2)
        bases.append((basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32))
    field = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
    # plain einsum and not BLAS, whose sums depend on the number of threads
    field = np.einsum("zc,abc->abz", bases[2], field)
    field = np.einsum("yb,abz->ayz", bases[1], field)
    return np.einsum("xa,ayz->xyz", bases[0], field)


def blur(image: Floats, sigma_mm: float, spacing_mm: float) -> Floats:
    """Blur an image by a Gaussian of ``sigma_mm``, on voxels of ``spacing_mm``."""
    return ndimage.gaussian_filter(image, sigma_mm / spacing_mm)


def random_matrix(rng: np.random.Generator, scale: float, degrees: float) -> NDArray[np.float64]:
    """Draw a rotation by about ``degrees`` around a random axis, times a log-normal scaling of each axis."""
    x, y, z = np.deg2rad(degrees) * rng.standard_normal(3)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.linalg.qr(np.eye(3) + skew)[0]
    rotation *= np.sign(np.diag(rotation))
    return rotation @ np.diag(np.exp(scale * rng.standard_normal(3)))
