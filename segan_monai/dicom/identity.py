# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The patient's identity, which logs and file names omit, as do DICOM results that are to be anonymous."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError

_SHORTEST = 3
_GB2312 = "\x1b$)A"  # escape sequence of ISO 2022 IR 58
_ANONYMOUS = {"PatientName": "ANONYMOUS^", "PatientID": "ANONYMOUS"}
# Type 2 of patient and study: present, but may be empty
_PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
_KEPT = frozenset(
    (
        *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
        *("FrameOfReferenceUID", "PositionReferenceIndicator", "Modality", "Manufacturer", "ManufacturerModelName"),
        *("Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
        *("SliceThickness", "SpacingBetweenSlices", "SharedFunctionalGroupsSequence"),
        *("PerFrameFunctionalGroupsSequence", "LossyImageCompression", "LossyImageCompressionRatio"),
        "LossyImageCompressionMethod",
    )
)
"""What an anonymous result may take over: references to the images, their geometry and the scanner's model."""


@dataclass(frozen=True)
class Identity:
    """Words that identify a patient: parts of the name, and the ID.

    Attributes:
        words: each at least three characters long.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, header: Any) -> Identity:
        """Return the identity in a DICOM header."""
        name, number = str(header.get("PatientName") or ""), str(header.get("PatientID") or "").strip()
        words = {number, *re.split(r"[\^=\s]+", name)}
        return cls(
            tuple(sorted((word for word in words if len(word) >= _SHORTEST), key=lambda word: (-len(word), word)))
        )

    def removed_from(self, text: str) -> str:
        """Return the text with ``...`` for each of the words, in any case and within other words."""
        for word in self.words:
            text = re.sub(re.escape(word), "...", text, flags=re.IGNORECASE)
        return text

    def refuse_in(self, place: Path, what: str) -> None:
        """Raise ConfigError if a path contains a word of the identity, because records of a run contain the path."""
        edges = [rf"(?<![^\W_]){re.escape(word)}(?![^\W_])" for word in self.words]
        if any(re.search(edge, str(place), re.IGNORECASE) for edge in edges):
            raise ConfigError(
                f"{what} contains the patient's name or ID, and the records of a run contain {what}. Choose a name "
                "without them, such as -o results."
            )


def prepare_headers(headers: list[Any], anonymous: bool) -> None:
    """Change DICOM headers, from which a result takes patient and study.

    Missing attributes of type 2 are added empty. UIDs stay, because they link the result to its images. Text becomes
    UTF-8, because highdicom refuses several character sets that scanners write. Attributes whose value cannot be read
    are removed.

    Args:
        headers: of the source images; changed in place.
        anonymous: whether to remove all attributes except the UIDs, the geometry and the scanner's model, among them
            those of the patient, the study, clinical trials, persons and institutions.
    """
    from pydicom.datadict import keyword_for_tag

    for header in headers:
        if anonymous:
            for tag in list(header.keys()):
                if keyword_for_tag(tag) not in _KEPT:
                    del header[tag]
        _to_utf8(header)
        for name in _PATIENT_AND_STUDY:
            if anonymous or name not in header:
                setattr(header, name, _ANONYMOUS.get(name, "") if anonymous else "")


def _to_utf8(header: Any) -> None:
    from pydicom.valuerep import PersonName

    for tag in list(header.keys()):
        try:
            element = header[tag]  # pydicom decodes text when it is first accessed
            for item in element.value if element.VR == "SQ" else ():
                item.decode()
            if isinstance(element.value, str | PersonName) and _GB2312 in str(element.value):
                element.value = str(element.value).replace(_GB2312, "")  # pydicom decodes the text, but leaves the mark
        except Exception:  # pydicom raises many types for a damaged value
            del header[tag]
    header.SpecificCharacterSet = "ISO_IR 192"
