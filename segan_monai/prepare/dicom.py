# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Discovery of DICOM CT series, and reading them as volumes in Hounsfield units."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segan_monai.case_names import path_for_simpleitk
from segan_monai.errors import DataError
from segan_monai.file_kinds import has_ending, is_dicom
from segan_monai.volume_files import Volume, affine_of_simpleitk, colour_dicom

_PATIENT, _MODALITY, _POSITION, _ORIENTATION = "0010|0020", "0008|0060", "0020|0032", "0020|0037"
_PLACES = {_POSITION: "ImagePositionPatient", _ORIENTATION: "ImageOrientationPatient", "0028|0030": "PixelSpacing"}
_RESCALE = ("0028|1052", "0028|1053")
_NUMBER, _ANNOUNCED = "0020|0013", ("0020|1002", "0054|0081")  # ImagesInAcquisition, NumberOfSlices
_ENDINGS = (".dcm", ".dicom", ".ima")
_CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1")
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"  # of a DICOMDIR
STEP_TOLERANCE = 0.01
"""[ours] Relative tolerance of slice distances to their median; rounding by GE and Siemens scanners is smaller."""

SPACING_TOLERANCE = 0.001
"""[ours] Relative tolerance of distances of pixels: half a pixel at the end of 512; some files round them."""


class Slice(NamedTuple):
    """Header of a DICOM slice.

    Attributes:
        file: Path of the file.
        position: Centre of the first pixel, (3,), in mm, LPS.
        axes: Directions of columns and rows, (2, 3), LPS.
        size: Numbers of columns and rows.
        spacing: Distances of columns and of rows, in mm.
        rescale: Intercept and slope to Hounsfield units.
        number: InstanceNumber; None if absent.
        announced: Number of slices in the acquisition, according to the file; None if absent.
        pixel_type: SimpleITK's number of the type in which the file's pixels are read; None for a frame.
    """

    file: str
    position: np.ndarray
    axes: np.ndarray
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    rescale: tuple[str, ...]
    number: int | None = None
    announced: int | None = None
    pixel_type: int | None = None


class Series(NamedTuple):
    """DICOM series of one patient.

    Attributes:
        patient: PatientID, such as ``PANCREAS_0001``.
        uid: SeriesInstanceUID.
        files: Files of the slices, sorted by name.
        damaged: Unreadable files in the folder that are DICOM by signature or name, and could be slices of the series.
    """

    patient: str
    uid: str
    files: tuple[str, ...]
    damaged: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Folder of the files."""
        return Path((*self.files, *self.damaged)[0]).parent


def find_series(folder: Path) -> list[Series]:
    """Find the CT series below a folder, at any depth.

    A folder may hold several series, and files may have any name.

    Args:
        folder: The folder.

    Returns:
        The series, sorted by patient and UID. Series of other modalities, DICOMDIR and other files are ignored.
        Unreadable files are listed as ``damaged`` in each CT series of their folder. In a folder with nothing else,
        they form a series without UID, so that they are never dropped silently.
    """
    import SimpleITK as sitk  # noqa: N813

    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        dicom = [name for name in sorted(files) if _counts_as_dicom(Path(parent, name))]
        if not dicom:
            continue
        here, readable = [], set()
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(path_for_simpleitk(parent)):
            of_series = sorted(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(parent, uid))
            tags = next(filter(None, map(_tags, of_series)), None)
            if tags is None and _class_of(Path(of_series[0])) in ("", *_CT_CLASSES):
                continue  # all files are damaged
            readable |= {Path(file).name for file in of_series}
            if tags and tags.get(_MODALITY, "").strip() == "CT":
                here.append(Series(tags.get(_PATIENT, "").strip(), uid, tuple(of_series)))
        damaged = tuple(str(Path(parent, name)) for name in dicom if name not in readable)
        if damaged and not readable:
            here = [Series("", "", ())]
        found += [series._replace(damaged=damaged) for series in here]
    return sorted(found)


def _counts_as_dicom(file: Path) -> bool:
    """Check for DICOM by signature, or by ending for a file truncated before the signature; exclude DICOMDIR."""
    if file.name.startswith(".") or not (is_dicom(file) or has_ending(file, _ENDINGS)):
        return False
    return _class_of(file) != _DIRECTORY_CLASS


def _class_of(file: Path) -> str:
    """Return the MediaStorageSOPClassUID, the type of object in a DICOM file; empty if absent."""
    try:
        with file.open("rb") as stream:
            start = stream.read(1024)
    except OSError:
        return ""
    found = re.search(rb"\x02\x00\x02\x00UI(..)", start, re.DOTALL)
    if found is None:
        return ""
    length = int.from_bytes(found[1], "little")
    return start[found.end() : found.end() + length].rstrip(b"\0 ").decode("ascii", "replace")


def _reader(file: str) -> Any:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.SetImageIO("GDCMImageIO")
    reader.ReadImageInformation()
    return reader


def _tags(file: str) -> dict[str, str] | None:
    """Read the tags of the header; return None if it is not that of a readable image."""
    try:
        reader = _reader(file)
    except RuntimeError:
        return None
    return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}


def read_slices(files: Sequence[str]) -> list[Slice]:
    """Read the headers of a series, sorted by slice position.

    Args:
        files: All slices of one series.

    Raises:
        DataError: A file is unreadable, has no position, orientation or PixelSpacing, or is in colour; slices differ in
            size, PixelSpacing or orientation; a slice is missing, two are at one position, or distances are uneven;
            slices are sheared, as with a tilted gantry.
    """
    return sort_slices([_slice(file) for file in files])


def read_pixels(slices: Sequence[Slice]) -> Volume:
    """Read the pixels of the slices returned by ``read_slices``.

    Returns:
        Values (columns, rows, slices) in Hounsfield units, and the affine (RAS, mm).

    Raises:
        DataError: The pixel data of a file is truncated or damaged.
    """
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([one.file for one in slices])
    reader.SetImageIO("GDCMImageIO")
    # With one pixel type and one rescaling, the type of the first slice is that of all
    if len({(one.rescale, one.pixel_type) for one in slices}) > 1:
        reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        reason = " ".join(str(error).rpartition("sitk::ERROR: ")[2].split())[:200]
        raise DataError(
            f"the series of {len(slices)} DICOM files in {Path(slices[0].file).parent} cannot be read ({reason}). A "
            "file is truncated or damaged; download the series again."
        ) from error
    return Volume(sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine_of_simpleitk(image))


def numbering_note(slices: Sequence[Slice]) -> str | None:
    """Return a note if InstanceNumber or the announced count suggests that slices are missing, else None.

    Positions reveal a gap between slices, but not a missing first or last slice.
    """
    numbers = sorted(one.number for one in slices if one.number is not None)
    announced = {one.announced for one in slices} - {None}
    signs = []
    if len(set(numbers)) == len(slices) and (absent := sorted(set(range(1, numbers[-1] + 1)) - set(numbers))):
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        signs.append(f"InstanceNumber {', '.join(map(str, absent[:5]))}{more} of {numbers[-1]}")
    if len(announced) == 1 and (count := announced.pop()) is not None and count > len(slices):
        signs.append(f"{count - len(slices)} of the {count} slices that its files announce")
    if not signs:
        return None
    return f"the series may be incomplete: found {len(slices)} slices, without {', and '.join(signs)}"


def _slice(file: str) -> Slice:
    try:
        reader = _reader(file)
        if reader.GetNumberOfComponents() > 1:
            raise colour_dicom(file)
        tags = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
        if absent := [name for key, name in _PLACES.items() if not tags.get(key, "").strip()]:
            raise DataError(
                f"{file} has no {' and no '.join(absent)}, so the size and place of its pixels in mm are unknown. "
                "Expected the attributes of a scanner's image; export the series again in its original form."
            )
        position = np.array([float(number) for number in tags[_POSITION].split("\\")])
        axes = np.array([float(number) for number in tags[_ORIENTATION].split("\\")]).reshape(2, 3)
        return Slice(
            file,
            position.reshape(3),
            axes,
            tuple(int(length) for length in reader.GetSize()[:2]),
            reader.GetSpacing()[:2],
            tuple(tags.get(key, "").strip() for key in _RESCALE),
            _whole_number(tags.get(_NUMBER, "")),
            next(filter(None, (_whole_number(tags.get(key, "")) for key in _ANNOUNCED)), None),
            reader.GetPixelIDValue(),
        )
    except DataError:
        raise
    except RuntimeError as error:
        raise DataError(
            f"{file} cannot be read as an image slice: it is truncated, damaged or not a DICOM image. Download it "
            "again; if it is not part of the series, move it elsewhere."
        ) from error
    except ValueError as error:
        raise DataError(
            f"{file} cannot be read as an image slice ({type(error).__name__}: {' '.join(str(error).split())[-200:]}). "
            "Expected DICOM with ImagePositionPatient and ImageOrientationPatient; download it again."
        ) from error


def _whole_number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def sort_slices(slices: Sequence[Slice]) -> list[Slice]:
    """Sort slices along their normal, and check that they form a volume.

    Raises:
        DataError: See ``read_slices``.
    """
    first = slices[0]
    for one in slices:
        if one.size != first.size or not np.allclose(one.axes, first.axes, atol=1e-4):
            raise DataError(
                f"{one.file} has {one.size[0]} x {one.size[1]} pixels along {one.axes.round(4).tolist()}, but "
                f"{first.file} of the same series has {first.size[0]} x {first.size[1]} along "
                f"{first.axes.round(4).tolist()}. Expected slices of one volume; move localizers elsewhere."
            )
        if not np.allclose(one.spacing, first.spacing, rtol=SPACING_TOLERANCE, atol=0):
            raise DataError(
                f"{one.file} has pixels of {one.spacing[0]:g} x {one.spacing[1]:g} mm (PixelSpacing), but {first.file} "
                f"of the same series has {first.spacing[0]:g} x {first.spacing[1]:g} mm. Expected slices of one "
                "volume; move those of another size elsewhere."
            )
    if len(slices) < 2:
        raise DataError(f"{first.file} is the only slice of its series. Expected a volume; download the whole series.")
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
        guess = "two slices are at one position" if steps[uneven] <= usual / 2 else "the distances are uneven"
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
            f"series in {Path(first.file).parent}: from the first to the last slice the image moves {aside:.2f} mm "
            "sideways, as with a tilted gantry. Resample it to a grid without shear first, for example with 3D Slicer."
        )
    return ordered
