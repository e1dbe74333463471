# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""RT structure set (RTSTRUCT) from a label map, with pydicom and contourpy.

highdicom writes none. rt-utils 1.2.7 exchanges the spacings of rows and columns, traces contours through the centres of
boundary voxels, which makes structures half a voxel too small on each side, and needs OpenCV.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator

from segan_monai._version import __version__
from segan_monai.dicom.seg import MANUFACTURER, SERIES_NUMBERS, Algorithm
from segan_monai.dicom.segments import Segment
from segan_monai.dicom.volumes import SeriesVolume

_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_COPIED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "StudyID", "ReferringPhysicianName", "SpecificCharacterSet"),
)


def contours_of(mask: np.ndarray) -> list[np.ndarray]:
    """Return the outlines of a mask, half way between its boundary voxels and their neighbours.

    Holes are joined to their outline by a cut of no width, because a structure set has no holes.

    Args:
        mask: (rows, columns).

    Returns:
        Closed outlines (points, 2) in indices of column and row; the first point is not repeated.
    """
    padded = np.pad(mask.astype(np.float64), 1)
    generator = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    areas: Any = generator.filled(0.5, 1.5)
    outlines = []
    for of_area, starts in zip(*areas, strict=True):
        rings = [of_area[start : end - 1] - 1 for start, end in itertools.pairwise(starts)]
        outlines.append(_joined(rings[0], rings[1:]))
    return outlines


def _joined(outline: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """Join holes to an outline, nearest first, so that no cut crosses another hole."""
    holes = list(holes)
    while holes:
        nearest = []
        for index, hole in enumerate(holes):
            apart = np.linalg.norm(outline[:, None] - hole[None], axis=-1)
            at, start = np.unravel_index(apart.argmin(), apart.shape)
            nearest.append((float(apart[at, start]), index, int(at), int(start)))
        _, index, at, start = min(nearest)
        hole = np.roll(holes.pop(index), -start, axis=0)
        outline = np.concatenate([outline[: at + 1], hole, hole[:1], outline[at:]])
    return outline


def structure_set(
    source: SeriesVolume, labels: np.ndarray, segments: Sequence[Segment], algorithm: Algorithm, now: datetime.datetime
) -> Any:
    """Build a structure set with one region of interest per segment; an empty segment has no contours.

    Args:
        source: series on whose grid the label map is.
        labels: label map (columns, rows, slices).
        segments: descriptions of the regions of interest.
        algorithm: written to the result.
        now: date and time of the result.

    Returns:
        ``pydicom.FileDataset``.
    """
    import pydicom
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_CLASS)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result = pydicom.FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)
    header = source.headers[0]
    for name in _COPIED:
        if name in header:
            setattr(result, name, header[name].value)
    result.SOPClassUID, result.SOPInstanceUID = _CLASS, meta.MediaStorageSOPInstanceUID
    result.Modality = "RTSTRUCT"
    result.SeriesInstanceUID, result.SeriesNumber = generate_uid(), SERIES_NUMBERS["RTSTRUCT"]
    result.SeriesDescription = f"Structures: {algorithm.name}"[:64]
    result.OperatorsName = ""
    result.Manufacturer, result.ManufacturerModelName = MANUFACTURER, algorithm.model_name
    result.SoftwareVersions = f"segan-monai {__version__}, bundle {algorithm.version}"
    result.InstanceNumber = 1
    result.StructureSetLabel = "SEGMENTATION"
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    result.StructureSetDate, result.StructureSetTime = date, time
    result.InstanceCreationDate, result.InstanceCreationTime = date, time
    result.ApprovalStatus = "UNAPPROVED"
    frame_of_reference = str(header.FrameOfReferenceUID)
    result.FrameOfReferenceUID, result.PositionReferenceIndicator = frame_of_reference, ""
    images = [_image(item) for item in source.headers]
    result.ReferencedFrameOfReferenceSequence = [
        _item(
            FrameOfReferenceUID=frame_of_reference,
            RTReferencedStudySequence=[
                _item(
                    ReferencedSOPClassUID=_STUDY_CLASS,
                    ReferencedSOPInstanceUID=header.StudyInstanceUID,
                    RTReferencedSeriesSequence=[
                        _item(SeriesInstanceUID=header.SeriesInstanceUID, ContourImageSequence=images)
                    ],
                )
            ],
        )
    ]
    result.StructureSetROISequence, result.ROIContourSequence, result.RTROIObservationsSequence = [], [], []
    for number, segment in enumerate(segments, 1):
        result.StructureSetROISequence.append(
            _item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=frame_of_reference,
                ROIName=segment.label,
                ROIGenerationAlgorithm="AUTOMATIC",
                ROIGenerationDescription=f"{algorithm.name} {algorithm.version}"[:64],
            )
        )
        contours = _contours(source, np.isin(labels, segment.values))
        colour = _item(ROIDisplayColor=list(segment.colour), ReferencedROINumber=number)
        if contours:
            colour.ContourSequence = contours
        result.ROIContourSequence.append(colour)
        result.RTROIObservationsSequence.append(
            _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="", ROIInterpreter="")
        )
    return result


def _contours(source: SeriesVolume, mask: np.ndarray) -> list[Any]:
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ source.volume.affine
    items = []
    for plane in np.flatnonzero(mask.any((0, 1))):
        if source.frames is None:
            image = _image(source.headers[plane])
        else:
            image = _image(source.headers[0])
            image.ReferencedFrameNumber = source.frames[plane] + 1
        for outline in contours_of(mask[:, :, plane].T):
            indices = np.column_stack([outline, np.full(len(outline), plane), np.ones(len(outline))])
            points = (indices @ lps.T)[:, :3]
            items.append(
                _item(
                    ContourImageSequence=[image],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourData=[f"{mm:.4f}" for mm in points.ravel()],
                )
            )
    return items


def _image(header: Any) -> Any:
    return _item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)


def _item(**values: Any) -> Any:
    import pydicom

    item = pydicom.Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item
