# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""CT series of DICOM files: which there are, and each as a volume in Hounsfield units."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segan_monai.case_names import path_for_simpleitk
from segan_monai.errors import DataError
from segan_monai.volume_files import Volume, affine_of_simpleitk

_PATIENT, _MODALITY, _POSITION, _ORIENTATION = "0010|0020", "0008|0060", "0020|0032", "0020|0037"
_RESCALE = ("0028|1052", "0028|1053")
STEP_TOLERANCE = 0.01
"""[ours] Distances between slices may differ by this part of their median; what GE and Siemens round away is less."""


class Slice(NamedTuple):
    """What is needed of a DICOM file before its pixels are read.

    Attributes:
        file: its path.
        position: (3,) of the first pixel's centre, mm, LPS.
        axes: (2, 3), where columns and rows lead, LPS.
        size: columns and rows.
        rescale: intercept and slope to Hounsfield units.
    """

    file: str
    position: np.ndarray
    axes: np.ndarray
    size: tuple[int, ...]
    rescale: tuple[str, ...]


class Series(NamedTuple):
    """A series of one patient.

    Attributes:
        patient: its PatientID, such as ``PANCREAS_0001``.
        uid: its SeriesInstanceUID.
        files: of its slices, sorted by name.
    """

    patient: str
    uid: str
    files: tuple[str, ...]


def find_series(folder: Path) -> list[Series]:
    """CT series below a folder, at any depth; several may lie in one folder, and files may have any name.

    Args:
        folder: the folder.

    Returns:
        The series, sorted by patient and UID. Series of other modalities are passed over.
    """
    import SimpleITK as sitk  # noqa: N813

    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not any(_may_be_dicom(Path(parent, name)) for name in files):
            continue
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(path_for_simpleitk(parent)):
            of_series = sorted(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(parent, uid))
            tags = _tags(of_series[0])
            if tags.get(_MODALITY, "").strip() == "CT":
                found.append(Series(tags.get(_PATIENT, "").strip(), uid, tuple(of_series)))
    return sorted(found)


def _may_be_dicom(file: Path) -> bool:
    """By the mark that stands at byte 128 of DICOM files."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _reader(file: str) -> Any:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.SetImageIO("GDCMImageIO")
    reader.ReadImageInformation()
    return reader


def _tags(file: str) -> dict[str, str]:
    reader = _reader(file)
    return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}


def read_series(files: Sequence[str]) -> Volume:
    """Read a series, sorted by where its slices lie and not by their names.

    Args:
        files: all slices of one series.

    Returns:
        Values (columns, rows, slices) in Hounsfield units, and the affine (RAS, mm).

    Raises:
        DataError: a file that cannot be read or says not where it lies; slices of several sizes or orientations; a
            missing slice, two at one place, or uneven distances; slices that are sheared against each other, as with a
            tilted gantry.
    """
    import SimpleITK as sitk  # noqa: N813

    slices = sort_slices([_slice(file) for file in files])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([one.file for one in slices])
    reader.SetImageIO("GDCMImageIO")
    if len({one.rescale for one in slices}) > 1:  # the first alone would decide on the type of all
        reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        reason = " ".join(str(error).rpartition("sitk::ERROR: ")[2].split())[:200]
        raise DataError(
            f"the series of {len(files)} DICOM files in {Path(files[0]).parent} cannot be read ({reason}). A file of "
            "it is truncated or damaged; download it again."
        ) from error
    return Volume(sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine_of_simpleitk(image))


def _slice(file: str) -> Slice:
    try:
        reader = _reader(file)
        tags = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
        position = np.array([float(number) for number in tags[_POSITION].split("\\")])
        axes = np.array([float(number) for number in tags[_ORIENTATION].split("\\")]).reshape(2, 3)
        size = tuple(int(length) for length in reader.GetSize()[:2])
        return Slice(file, position.reshape(3), axes, size, tuple(tags.get(key, "").strip() for key in _RESCALE))
    except (RuntimeError, KeyError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read as a slice of CT ({type(error).__name__}: {' '.join(str(error).split())[-200:]}). "
            "Expected DICOM with ImagePositionPatient and ImageOrientationPatient; download it again."
        ) from error


def sort_slices(slices: Sequence[Slice]) -> list[Slice]:
    """Sort slices along their normal, and check that they are the slices of a volume.

    Raises:
        DataError: see `read_series`.
    """
    first = slices[0]
    for one in slices:
        if one.size != first.size or not np.allclose(one.axes, first.axes, atol=1e-4):
            raise DataError(
                f"{one.file} has {one.size[0]} x {one.size[1]} pixels along {one.axes.round(4).tolist()}, but "
                f"{first.file} of the same series {first.size[0]} x {first.size[1]} along "
                f"{first.axes.round(4).tolist()}. Expected slices of one volume; move localizers elsewhere."
            )
    if len(slices) < 2:
        raise DataError(f"{first.file} is the only slice of its series. Expected a volume; download all of it.")
    normal = np.cross(*first.axes)
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    places = np.array([one.position @ normal for one in ordered])
    steps = np.diff(places)
    usual = float(np.median(steps))
    uneven = int(np.abs(steps - usual).argmax())
    if usual <= 0 or abs(steps[uneven] - usual) > STEP_TOLERANCE * usual:
        lower, upper = (Path(one.file).name for one in ordered[uneven : uneven + 2])
        what = f"{steps[uneven]:g} mm apart where others are {usual:g}"
        missing = round(steps[uneven] / usual) - 1 if usual > 0 else 0
        guess = "two slices are at one place" if steps[uneven] <= usual / 2 else "the distances are uneven"
        if missing >= 1:
            guess = f"{missing} slice{'s are' if missing > 1 else ' is'} missing"
        raise DataError(
            f"series in {Path(first.file).parent}: {lower} and {upper} are {what}: {guess}. Download the series again, "
            "or move this case elsewhere; a volume needs evenly spaced slices."
        )
    path = ordered[-1].position - ordered[0].position
    aside = float(np.linalg.norm(path - (path @ normal) * normal))
    if aside > STEP_TOLERANCE * usual * len(slices):
        raise DataError(
            f"series in {Path(first.file).parent}: from the first slice to the last the image moves {aside:.2f} mm "
            "sideways, as with a tilted gantry. Resample it to a grid without shear first (3D Slicer can)."
        )
    return ordered
