# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Series as volumes, with the source image of each slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform

from segan_monai.dicom.study import Study, StudySeries
from segan_monai.errors import DataError
from segan_monai.grids import GRID_TOLERANCE_VOXELS, corner_distance
from segan_monai.prepare.dicom import Slice, numbering_note, read_pixels, read_slices, sort_slices
from segan_monai.volume_files import Volume

LEAST_OVERLAP = 0.5
"""[ours] Least share of the first series' field of view that another series must cover."""
_TELL_APART = (
    *("EchoTime", "EchoNumbers", "DiffusionBValue", "TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber"),
    *("AcquisitionTime", "ContentTime", "InstanceNumber"),
)


@dataclass
class SeriesVolume:
    """Series as a volume.

    Attributes:
        series: the series.
        volume: values (columns, rows, slices) after the rescaling of the file, and the affine (RAS, mm).
        headers: of the source images, without pixels: one per slice in the order of the volume, or the only one of a
            multi-frame image.
        frames: index of each slice in its file; None for a series of single images.
        notes: remarks for the user.
    """

    series: StudySeries
    volume: Volume
    headers: list[Any]
    frames: list[int] | None
    notes: list[str]

    def source_order(self) -> list[int]:
        """Return the slices of the volume in the order of the source images: frames as stored, or as ``headers``."""
        if self.frames is None:
            return list(range(len(self.headers)))
        return [int(index) for index in np.argsort(self.frames)]


def read_series(study: Study, series: StudySeries) -> SeriesVolume:
    """Read a series.

    Raises:
        DataError: A file is damaged, in colour, or compressed in a way that no installed package reads; slices are not
            those of one volume (see ``segan_monai.prepare.dicom.sort_slices``); there is no frame of reference.
    """
    import pydicom

    if not series.frame_of_reference:
        raise DataError(
            f"{series.files[0]} has no FrameOfReferenceUID, so a result cannot be placed on {series}. Export the "
            "series from the PACS; some programs remove it when they anonymize."
        )
    folders = {file.parent for file in series.files}
    if damaged := [file for file in study.damaged if file.parent in folders]:
        raise DataError(
            f"{damaged[0]} cannot be read, and may be an image of {series}. It is truncated or damaged: export the "
            "series again; if the file is none of its images, move it elsewhere."
        )
    first = pydicom.dcmread(series.files[0], stop_before_pixels=True, force=True)
    if "NumberOfFrames" in first and int(first.NumberOfFrames) > 1:
        return _multi_frame(series, first)
    by_file = {str(file): pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in series.files}
    _check_uids(series, by_file)
    _check_positions(series, by_file)
    slices = read_slices(list(by_file))
    notes = [note for note in [numbering_note(slices)] if note]
    return SeriesVolume(series, read_pixels(slices), [by_file[one.file] for one in slices], None, notes)


def _check_uids(series: StudySeries, by_file: Mapping[str, Any]) -> None:
    """Refuse images that share an SOPInstanceUID, by which results refer to them."""
    first: dict[str, str] = {}
    for file, header in by_file.items():
        if (other := first.setdefault(str(header.SOPInstanceUID), file)) is not file:
            raise DataError(
                f"{series}: {other} and {Path(file).name} have one SOPInstanceUID, {header.SOPInstanceUID}, but "
                "different positions. Expected one UID per image, because results refer to images by it; export the "
                "series again."
            )


def _check_positions(series: StudySeries, by_file: Mapping[str, Any]) -> None:
    """Refuse two images at one position, and name what tells them apart."""
    places = {file: header.get("ImagePositionPatient") for file, header in by_file.items()}
    if twice := _at_one_place({file: place for file, place in places.items() if place}):  # read_slices names the others
        one, other = (by_file[file] for file in twice)
        differs = next((name for name in _TELL_APART if one.get(name) != other.get(name)), None)
        values = f" ({differs} {one.get(differs)} and {other.get(differs)})" if differs else ""
        names = " and ".join(Path(file).name for file in twice)
        raise _shared_place(series, names, places[twice[0]], places.values(), values)


def _at_one_place(places: Mapping[Any, Iterable[float]]) -> tuple[Any, Any] | None:
    """Return the first two names that have one place."""
    first: dict[tuple[float, ...], Any] = {}
    for name, place in places.items():
        if (other := first.setdefault(_rounded(place), name)) is not name:
            return other, name
    return None


def _rounded(place: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(mm), 3) for mm in place)


def _shared_place(
    series: StudySeries, names: str, place: Iterable[float], places: Iterable[Any], values: str = ""
) -> DataError:
    counts = Counter(_rounded(place) for place in places if place is not None)
    shared = sum(count for count in counts.values() if count > 1)
    return DataError(
        f"{series}: {names} are at one position, {list(_rounded(place))} mm{values}; {shared} images share theirs. "
        "Expected one volume per series: split the echoes, b values or time points into series of their own, for "
        "example with 3D Slicer, and choose one."
    )


def _multi_frame(series: StudySeries, header: Any) -> SeriesVolume:
    """Read an enhanced (multi-frame) image, whose frames may be stored in any order."""
    file = series.files[0]
    if len(series.files) > 1:
        raise DataError(
            f"{series} consists of {len(series.files)} multi-frame files, such as {file}. Expected one: choose another "
            "series, or export each file as a series of its own."
        )
    try:
        slices = [_frame(str(file), header, index) for index in range(int(header.NumberOfFrames))]
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} does not say where its frames are ({type(error).__name__}: {' '.join(str(error).split())[:200]}). "
            "Expected an enhanced CT or MR image with plane positions and orientations; export the series as single "
            "images."
        ) from error
    if twice := _at_one_place({index + 1: one.position for index, one in enumerate(slices)}):
        names = f"frames {twice[0]} and {twice[1]}"
        raise _shared_place(series, names, slices[twice[0] - 1].position, [one.position for one in slices])
    ordered = sort_slices(slices)
    frames = [int(one.file.rpartition("#")[2]) for one in ordered]
    try:
        stored = _pixels(file)
    except Exception as error:  # each decoder raises its own types
        name = getattr(header.file_meta.get("TransferSyntaxUID"), "name", "little endian")
        raise DataError(
            f"{file}: the frames, stored as {name}, cannot be read ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}). Export the series uncompressed, or install what pydicom needs to "
            "read them."
        ) from error
    if stored.ndim != 3:
        raise DataError(f"{file} is in colour. Expected grey values; choose the original series.")
    scales = np.array([[float(text) for text in one.rescale] for one in ordered])
    values = stored[frames].astype(np.float64) * scales[:, 1, None, None] + scales[:, 0, None, None]
    affine = np.eye(4)
    affine[:3, :2] = ordered[0].axes.T * ordered[0].spacing
    affine[:3, 2] = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    affine[:3, 3] = ordered[0].position
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return SeriesVolume(series, Volume(values.transpose(2, 1, 0), ras), [header], frames, [])


def _pixels(file: Path) -> np.ndarray:
    """Return the stored values, (frames, rows, columns); a file without a preamble may name no transfer syntax."""
    import pydicom

    image = pydicom.dcmread(file, force=True)
    if "TransferSyntaxUID" not in image.file_meta:
        implicit = image.original_encoding[0]
        image.file_meta.TransferSyntaxUID = (
            pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        )
    return image.pixel_array


def _frame(file: str, header: Any, index: int) -> Slice:
    try:
        rescale = _group(header, index, "PixelValueTransformationSequence")
        intercept, slope = str(rescale.RescaleIntercept), str(rescale.RescaleSlope)
    except AttributeError:
        intercept, slope = str(header.get("RescaleIntercept", 0)), str(header.get("RescaleSlope", 1))
    if "None" in (intercept, slope):
        raise DataError(
            f"{file}: frame {index + 1} has an empty RescaleIntercept or RescaleSlope. Expected numbers, without which "
            "the values are unknown; export the series again."
        )
    rows, columns = _group(header, index, "PixelMeasuresSequence").PixelSpacing
    return Slice(
        f"{file}#{index}",
        np.array([float(mm) for mm in _group(header, index, "PlanePositionSequence").ImagePositionPatient]),
        np.array(
            [float(part) for part in _group(header, index, "PlaneOrientationSequence").ImageOrientationPatient]
        ).reshape(2, 3),
        (int(header.Columns), int(header.Rows)),
        (float(columns), float(rows)),
        (intercept, slope),
    )


def _group(header: Any, index: int, name: str) -> Any:
    """Return a functional group of a frame, or else the one that all frames share."""
    own = header.PerFrameFunctionalGroupsSequence[index]
    return getattr(own if name in own else header.SharedFunctionalGroupsSequence[0], name)[0]


def on_grid_of(reference: SeriesVolume, moving: SeriesVolume) -> np.ndarray:
    """Return the values of a series on the grid of another one in the same frame of reference.

    Values are interpolated linearly. Voxels outside the series are 0. Values on the same grid are returned unchanged.

    Raises:
        DataError: The series covers less than half of the other's field of view.
    """
    shape, target = reference.volume.values.shape, reference.volume.affine
    values, affine = moving.volume
    if values.shape == shape and corner_distance(shape, target, affine)[0] <= GRID_TOLERANCE_VOXELS:
        return values
    matrix = np.linalg.inv(affine) @ target
    # Voxels end half a voxel beyond their centres, where the mode "constant" interpolates nothing, not even at -1e-15
    field = np.ones(values.shape, np.float32)
    inside = affine_transform(field, matrix, output_shape=shape, order=0, mode="grid-constant")
    if (covered := float(inside.mean())) < LEAST_OVERLAP:
        raise DataError(
            f"{moving.series} covers {covered:.0%} of the field of view of {reference.series}. Expected at least "
            f"{LEAST_OVERLAP:.0%}: choose series of one region with --series."
        )
    moving.notes.append(f"resampled onto the grid of {reference.series}, of which it covers {covered:.0%}")
    return inside * affine_transform(values.astype(np.float32), matrix, output_shape=shape, order=1, mode="nearest")


def stacked(volumes: Sequence[SeriesVolume]) -> list[np.ndarray]:
    """Return the values of all series on the grid of the first one."""
    return [volumes[0].volume.values, *(on_grid_of(volumes[0], other) for other in volumes[1:])]
