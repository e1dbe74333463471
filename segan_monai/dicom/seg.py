# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""DICOM Segmentation (SEG) from a label map or probabilities, with highdicom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segan_monai._version import __version__
from segan_monai.dicom.segments import Segment
from segan_monai.dicom.volumes import SeriesVolume

KINDS = ("binary", "fractional", "labelmap")
MANUFACTURER = "segan-monai"
SERIES_NUMBERS = {"SEG": 9001, "RTSTRUCT": 9002, "OT": 9003}
"""Series numbers of results by modality, far from those of a scanner."""


@dataclass(frozen=True)
class Algorithm:
    """What made a result.

    Attributes:
        name: of the bundle.
        version: of the bundle.
    """

    name: str
    version: str

    @property
    def model_name(self) -> str:
        """ManufacturerModelName, which has at most 64 characters."""
        return self.name[:64]


def segmentation(
    kind: str, source: SeriesVolume, others: Sequence[SeriesVolume], array: np.ndarray, segments: Sequence[Segment],
    algorithm: Algorithm, case: str,
) -> Any:  # fmt: skip
    """Build a segmentation whose frames refer to their source images.

    Frames without a segment are omitted. A result without any segment has all frames, all empty, because DICOM does not
    permit an image without frames.

    Args:
        kind: ``binary`` (segments may overlap), ``labelmap`` (one value per voxel) or ``fractional`` (probabilities).
        source: series whose grid the result has.
        others: further series of the study that the result was computed from.
        array: label map (columns, rows, slices), or for ``fractional`` probabilities (columns, rows, slices, segments).
        segments: descriptions; for ``labelmap``, each with one value.
        algorithm: written to the result.
        case: name of the case, the prefix of tracking ids.

    Returns:
        ``highdicom.seg.Segmentation``.
    """
    import highdicom as hd

    by_plane = np.swapaxes(array, 0, 2)[source.source_order()]  # (slices, rows, columns[, segments])
    if kind == "labelmap":
        pixels = np.zeros(by_plane.shape, np.uint8)
        for number, segment in enumerate(segments, 1):
            pixels[np.isin(by_plane, segment.values)] = number
    elif kind == "binary":
        pixels = np.stack([np.isin(by_plane, segment.values) for segment in segments], axis=-1).astype(np.uint8)
    else:
        pixels = np.clip(by_plane, 0, 1).astype(np.float32)
    return hd.seg.Segmentation(
        source_images=source.headers,
        pixel_array=pixels,
        segmentation_type=kind.upper(),
        segment_descriptions=[
            _description(number, segment, algorithm, case) for number, segment in enumerate(segments, 1)
        ],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBERS["SEG"],
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=algorithm.model_name,
        software_versions=f"segan-monai {__version__}, bundle {algorithm.version}",
        device_serial_number=__version__,
        content_label="SEGMENTATION",
        content_description=algorithm.name[:64],
        series_description=f"Segmentation: {algorithm.name}"[:64],
        further_source_images=[header for other in others for header in other.headers] or None,
        omit_empty_frames=bool(pixels.any()),
    )


def _description(number: int, segment: Segment, algorithm: Algorithm, case: str) -> Any:
    import highdicom as hd
    from highdicom.sr.coding import CodedConcept
    from pydicom.sequence import Sequence as DicomSequence
    from pydicom.sr.codedict import codes

    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=CodedConcept(*segment.category),
        segmented_property_type=CodedConcept(*segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            algorithm.name[:64], codes.DCM.ArtificialIntelligence, algorithm.version
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"{case} {segment.name}"[:64],
        anatomic_regions=[CodedConcept(*segment.anatomy)] if segment.anatomy else None,
        display_color=hd.color.CIELabColor.from_rgb(*segment.colour),
    )
    if segment.modifier:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = DicomSequence([CodedConcept(*segment.modifier)])
    return description
