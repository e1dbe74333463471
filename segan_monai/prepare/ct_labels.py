# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Alignment of NIfTI label maps with DICOM series, where the NIfTI header may be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np

from segan_monai.errors import DataError
from segan_monai.grids import GRID_TOLERANCE_VOXELS, corner_distance
from segan_monai.prepare.options import LABEL_FLIPS
from segan_monai.volume_files import Volume

SPREAD_FACTOR = 1.5
"""[ours] A flip is wrong if its standard deviation under the label exceeds that of another flip by this factor.

Measured on 191 slices of 46 patients of NIH Pancreas-CT (8-bit, windowed). With the label upside down, the standard
deviation is larger in 44 of 46 patients, by more than 1.5 times in 42. With left and right exchanged, it is larger in
all 46. The two exceptions have one and two slices."""


class Placed(NamedTuple):
    """Label map on the grid of its image.

    Attributes:
        values: (H, W, D).
        flip: Stored axes reversed relative to the series: a key of ``LABEL_FLIPS``.
        how: Evidence for the flip, for the manifest.
    """

    values: np.ndarray
    flip: str
    how: str


def place_label(label_file: Path, label: Volume, image_name: str, image: Volume, flip: str = "auto") -> Placed:
    """Align a label map with the grid of its image by reversing axes, without interpolation.

    NIH's Pancreas-CT labels must be flipped along y relative to the DICOM images, as published with the data set's
    derivatives. This function verifies the flip instead of assuming it:

    1. If the label's header places every voxel on a voxel of the image, the header determines the reversed axes.
       Otherwise the directions of its axes are a first guess.
    2. The image must agree. An organ is one kind of tissue, while a wrongly flipped label also covers fat, air and
       bone, which raises the standard deviation of the intensities under it.
    3. A guess from directions is kept if no other flip has a smaller standard deviation. It is replaced by a flip whose
       standard deviation is smaller by ``SPREAD_FACTOR``. In between, the case is refused.
    4. A header that fits in every voxel is refused if the image contradicts it by ``SPREAD_FACTOR``.

    Args:
        label_file: Path for error messages.
        label: The label map (H, W, D).
        image_name: Name for error messages.
        image: The image (H, W, D) in Hounsfield units.
        flip: ``auto``, or a key of ``LABEL_FLIPS`` if known.

    Raises:
        DataError: The shapes or the voxel sizes differ; header and image contradict each other.
    """
    if label.values.shape != image.values.shape:
        raise DataError(
            f"{label_file} has shape {label.values.shape}, but {image_name} has {image.values.shape}. A label map "
            "needs the grid of its image: check whether slices of the series are missing."
        )
    sizes = [nibabel.affines.voxel_sizes(volume.affine) for volume in (label, image)]
    if not np.allclose(sizes[0], sizes[1], rtol=0.01):
        raise DataError(
            f"{label_file} has voxels of {sizes[0].round(4).tolist()} mm, but {image_name} has "
            f"{sizes[1].round(4).tolist()}. The label map belongs to another image."
        )
    if flip != "auto":
        return Placed(np.flip(label.values, LABEL_FLIPS[flip]), flip, "as the option says")
    fitting = next((name for name in LABEL_FLIPS if _fits(name, label, image)), None)
    by_header = fitting or _by_directions(label, image)
    spreads = _spreads(label.values, image.values)
    best = min(spreads, key=lambda name: spreads[name]) if spreads else by_header
    found = ", ".join(f"{name} {spread:.0f}" for name, spread in spreads.items())
    clear = bool(spreads) and spreads[by_header] > SPREAD_FACTOR * spreads[best]
    if best != by_header and bool(fitting) == clear:
        raise DataError(
            f"{label_file} and {image_name} disagree on the flip of the label map: by its header flipped along "
            f"{by_header}, by the image along {best} (standard deviations under the label in HU: {found}). View "
            "both, then set --label-flip to the right one (published for NIH Pancreas-CT: y)."
        )
    flip = best if clear and not fitting else by_header
    evidence = "its header lies on the image" if fitting else "directions in its header" if not clear else "the image"
    return Placed(
        np.flip(label.values, LABEL_FLIPS[flip]),
        flip,
        f"{evidence}; standard deviations under the label in HU: {found}",
    )


def _fits(name: str, label: Volume, image: Volume) -> bool:
    """Check that the flipped label has the image's affine, at the corners."""
    size = np.array(image.values.shape) - 1
    reverse = np.eye(4)
    for axis in LABEL_FLIPS[name]:
        reverse[axis, axis], reverse[axis, 3] = -1, size[axis]
    return corner_distance(image.values.shape, image.affine, label.affine @ reverse)[0] <= GRID_TOLERANCE_VOXELS


def _by_directions(label: Volume, image: Volume) -> str:
    """Return the flip that gives the label's axes the image's directions; ``none`` if their order differs."""
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(label.affine), nibabel.io_orientation(image.affine)
    )
    if not np.array_equal(turn[:, 0], [0, 1, 2]):
        return "none"
    reversed_axes = tuple(axis for axis in range(3) if turn[axis, 1] < 0)
    return next(name for name, axes in LABEL_FLIPS.items() if axes == reversed_axes)


def _spreads(label: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """Return the standard deviation of the image under the label for each flip; empty for an empty label map."""
    if not label.any():
        return {}
    inside = np.nonzero(label)
    found = {}
    for name, axes in LABEL_FLIPS.items():
        where = [label.shape[axis] - 1 - inside[axis] if axis in axes else inside[axis] for axis in range(3)]
        found[name] = float(image[tuple(where)].std())
    return found
