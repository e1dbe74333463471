# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Positions of results in patient space, computed from the attributes that each frame has."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pydicom


def group(header: Any, index: int, name: str) -> Any:
    """Functional group of a frame, its own or the shared one."""
    own = header.PerFrameFunctionalGroupsSequence[index]
    return getattr(own if name in own else header.SharedFunctionalGroupsSequence[0], name)[0]


def points_of_frames(file: Path) -> dict[int, np.ndarray]:
    """Voxels of each segment in mm, LPS, with pydicom alone."""
    header = pydicom.dcmread(file)
    pixels = header.pixel_array.reshape(-1, header.Rows, header.Columns)
    points = defaultdict(list)
    for index, frame in enumerate(pixels):
        orientation = group(header, index, "PlaneOrientationSequence").ImageOrientationPatient
        cosines = np.array(orientation, float).reshape(2, 3)
        origin = np.array(group(header, index, "PlanePositionSequence").ImagePositionPatient, float)
        between_rows, between_columns = map(float, group(header, index, "PixelMeasuresSequence").PixelSpacing)
        row, column = np.nonzero(frame)
        place = origin + np.outer(column * between_columns, cosines[0]) + np.outer(row * between_rows, cosines[1])
        if header.SegmentationType == "LABELMAP":
            for value in np.unique(frame[frame > 0]):
                points[int(value)].append(place[frame[row, column] == value])
        else:
            number = int(group(header, index, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            points[number].append(place)
    return {number: np.concatenate(of_segment) for number, of_segment in points.items()}


def points_of_labels(labels: np.ndarray, affine: np.ndarray, values: Any) -> np.ndarray:
    """Voxels of a label map in mm, LPS, through the affine of its NIfTI (RAS)."""
    indices = np.argwhere(np.isin(labels, values))
    points = indices @ affine[:3, :3].T + affine[:3, 3]
    return points * [-1, -1, 1]


def sources_of_frames(file: Path) -> list[tuple[str, int | None]]:
    """SOPInstanceUID and frame number of the source image of each frame."""
    header = pydicom.dcmread(file)
    found = []
    for index in range(int(header.NumberOfFrames)):
        (source,) = group(header, index, "DerivationImageSequence").SourceImageSequence
        found.append((str(source.ReferencedSOPInstanceUID), source.get("ReferencedFrameNumber")))
    return found
