# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Discovery, reading and validation of label map files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segan_monai.case_names import case_name
from segan_monai.data.layouts import WITH_LABEL_MAPS
from segan_monai.errors import DataError
from segan_monai.file_kinds import VOLUMES, has_ending
from segan_monai.folders import walk_files
from segan_monai.volume_files import read_volume

WHOLE_NUMBER_TOLERANCE = 0.01


class LabelMap(NamedTuple):
    """A label map on its voxel grid.

    Attributes:
        name: file or case, for error messages.
        values: integers of shape ``(H, W, D)``.
        affine: ``(4, 4)``, from voxel indices to mm in the RAS frame.
    """

    name: str
    values: np.ndarray
    affine: np.ndarray


def label_map(name: str, values: np.ndarray, affine: np.ndarray) -> LabelMap:
    """Check an array and convert it to a ``LabelMap``.

    Args:
        name: file or case, for error messages.
        values: array of shape ``(H, W)``, ``(H, W, D)`` or ``(H, W, D, 1)``, of any dtype; a 2-D array becomes one
            slice.
        affine: ``(4, 4)``, in mm, RAS.

    Raises:
        DataError: if there is more than one channel, or a value is not an integer.
    """
    shape = values.shape
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3:
        raise DataError(f"{name}: shape {shape}; expected one label map (H, W, D). Merge channels into one label map.")
    if values.dtype.kind not in "iub":
        whole = np.rint(values)
        # smaller deviations are rounding: nibabel rescales floats that it saves as uint8; larger values overflow int32
        with np.errstate(invalid="ignore"):
            fits = (np.abs(values - whole) <= WHOLE_NUMBER_TOLERANCE) & (np.abs(whole) < 2**31)
        wrong = values[~fits]
        if wrong.size:
            raise DataError(
                f"{name}: value {wrong[0]:g} is not an integer ({wrong.size} such voxels); expected a label map. Is it "
                "an image, a probability map, or a label map resampled without nearest neighbour?"
            )
        values = whole.astype(np.int32)
    return LabelMap(name, values, np.asarray(affine, dtype=float))


def read_label_map(path: Path) -> LabelMap:
    """Read a label map, see ``segan_monai.volume_files.read_volume``.

    Raises:
        DataError: if the file cannot be read, has more than one channel, or contains a value that is not an integer.
    """
    return label_map(str(path), *read_volume(path))


def without_labels(of: LabelMap, background_labels: Sequence[int]) -> LabelMap:
    """Return a label map with 0 in place of the values that count as background."""
    if not background_labels:
        return of
    return of._replace(values=np.where(np.isin(of.values, background_labels), 0, of.values))


def find_label_maps(folder: Path) -> dict[str, Path]:
    """Find the label maps in a folder and its subfolders, distinguishing them from images by name.

    The first rule that matches any file applies, and only files that match it are label maps:

    1. ``<case>_seg.*``, as written by this package and BraTS from 2017 on, or ``<case>-seg.*``, BraTS from 2023 on.
    2. ``.OT.`` in the name, BraTS 2012 to 2015. The case is named after the parent of the ``VSD.*`` folders, with the
       grade as prefix (``HGG_brats_2013_pat0001_1``), because both grades have cases of the same name.
    3. A file ``<case>.*`` in a folder ``labelsTr``, Medical Segmentation Decathlon.
    4. Any file ``<case>.*``.

    Formats: ``.nii.gz``, ``.nii``, ``.mha``, ``.nrrd``, in lower or upper case. Names with a leading dot, which macOS
    creates, are ignored.

    Returns:
        Path of the label map of each case, sorted by case.

    Raises:
        DataError: if the folder is missing or contains no label map, or a case has two.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    paths = sorted(path for path in walk_files(folder) if has_ending(path.name, VOLUMES))
    names = (layout.label_maps(paths, folder) for layout in WITH_LABEL_MAPS if layout.label_maps)
    found: dict[str, Path] = {}
    for path, name in next(filter(None, names), {}).items():
        case = case_name(name)
        if case in found:
            raise DataError(
                f"case {case} has two label maps, {found[case]} and {path}; expected one. "
                "Give a folder with one label map per case and no other files."
            )
        found[case] = path
    if not found:
        raise DataError(
            f"{folder}: no label map found; expected files <case>_seg or <case> with .nii.gz, .nii, .mha, .nrrd"
        )
    return dict(sorted(found.items()))
