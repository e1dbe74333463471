# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The image series of a study: in a folder, a zip file, or the files that a DICOMDIR lists."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segan_monai.dicom.identity import Identity
from segan_monai.errors import DataError, missing_file
from segan_monai.file_kinds import has_ending, is_dicom
from segan_monai.prepare.archives import is_zip, unpack

_ENDINGS = (".dcm", ".dicom", ".ima")
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"),
    *("Modality", "SeriesDescription", "SeriesNumber", "ImageType", "NumberOfFrames", "Rows", "SpecificCharacterSet"),
    *("PatientID", "PatientName", "ImagePositionPatient"),
]
_ELEMENT = re.compile(rb"[\x02\x08]\0..(?:[A-Z]{2}|..\0\0)", re.DOTALL)
"""First element, of group 0002 or 0008: with a value representation, or without and with a length below 65536."""


@dataclass
class StudySeries:
    """Image series of a study.

    Attributes:
        uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
        frame_of_reference: FrameOfReferenceUID; empty if absent.
        modality: such as ``CT`` or ``MR``.
        number: SeriesNumber; empty if absent.
        description: SeriesDescription.
        is_localizer: whether its images are localizers.
        files: one per instance; further copies of an instance at the same position are omitted.
        frames: number of images.
        identity: what identifies the patient.
    """

    uid: str
    study_uid: str
    frame_of_reference: str
    modality: str
    number: str
    description: str
    is_localizer: bool
    identity: Identity
    files: list[Path] = field(default_factory=list)
    frames: int = 0

    def __str__(self) -> str:
        number = f"series {self.number}" if self.number else "series"
        description = self.identity.removed_from(self.description)
        return f"{number} {description!r} ({self.modality}, {self.frames} images, UID {self.uid})"


@dataclass
class Study:
    """Image series of a study, and its files that cannot be read."""

    source: Path
    series: list[StudySeries]
    damaged: list[Path]

    def listed(self, series: Sequence[StudySeries] | None = None) -> str:
        """Return the series as text, by default all."""
        return "; ".join(map(str, self.series if series is None else series))


def read_study(source: Path, scratch: Path) -> Study:
    """Find the image series of a study, at any depth; file names do not matter.

    Args:
        source: folder, zip file, or file DICOMDIR.
        scratch: a zip file is unpacked to this folder, which must not exist.

    Returns:
        Series with pixels, sorted by number.

    Raises:
        DataError: The source does not exist or has no DICOM images; a zip file is damaged; a file that a DICOMDIR
            lists is missing.
    """
    import pydicom

    found: dict[str, StudySeries] = {}
    instances: dict[str, set[tuple[str, str]]] = defaultdict(set)
    damaged = []
    for file in _files_of(source, scratch):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS, force=not is_dicom(file))
            if header.get("SOPClassUID", header.file_meta.get("MediaStorageSOPClassUID")) == _DIRECTORY_CLASS:
                continue
            uid = str(header.SeriesInstanceUID)
            instance = (str(header.SOPInstanceUID), str(header.get("ImagePositionPatient")))
        except Exception:  # pydicom raises many types for a damaged file
            damaged.append(file)
            continue
        if "Rows" not in header or instance in instances[uid]:
            continue  # no image, or a copy
        instances[uid].add(instance)
        series = found.setdefault(uid, _series_of(uid, header))
        series.files.append(file)
        series.frames += int(header.get("NumberOfFrames") or 1)
    if not found:
        what = f"{len(damaged)} that cannot be read, such as {damaged[0].name}" if damaged else "no DICOM file"
        raise DataError(
            f"{source}: no DICOM images; found {what}. Expected the folder, zip file or DICOMDIR of a study; export it "
            "again from the PACS."
        )
    ordered = sorted(found.values(), key=lambda one: (one.number.zfill(9), one.uid))
    return Study(source, ordered, damaged)


def _series_of(uid: str, header: Any) -> StudySeries:
    return StudySeries(
        uid,
        str(header.get("StudyInstanceUID", "")),
        str(header.get("FrameOfReferenceUID", "")),
        str(header.get("Modality", "")),
        str(header.get("SeriesNumber") or ""),
        str(header.get("SeriesDescription", "")).strip(),
        "LOCALIZER" in (header.get("ImageType") or []),
        Identity.of(header),
    )


def _files_of(source: Path, scratch: Path) -> Iterator[Path]:
    if not source.exists():
        raise missing_file(source, "Expected the folder, zip file or DICOMDIR of a study; correct the path.")
    if is_zip(source):
        unpack(source, scratch)
        source = scratch
    if source.is_file():
        yield from _listed_in(source)
        return
    for parent, folders, names in os.walk(source, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(parent, name)
            if not name.startswith(".") and (has_ending(file, _ENDINGS) or _begins_as_dicom(file)):
                yield file


def _begins_as_dicom(file: Path) -> bool:
    """Return whether a file has the DICOM prefix, or begins with an element (little endian) because it has none."""
    if is_dicom(file):
        return True
    try:
        with file.open("rb") as stream:
            return _ELEMENT.match(stream.read(8)) is not None
    except OSError:
        return False


def _listed_in(directory: Path) -> list[Path]:
    """Return the files that a DICOMDIR lists, or the file itself if it is another DICOM file."""
    import pydicom

    if not _begins_as_dicom(directory):
        raise DataError(f"{directory} is not DICOM. Expected the folder, zip file or DICOMDIR of a study.")
    content = pydicom.dcmread(directory, stop_before_pixels=True, force=True)
    if content.file_meta.get("MediaStorageSOPClassUID") != _DIRECTORY_CLASS:
        return [directory]
    names = [record.ReferencedFileID for record in content.DirectoryRecordSequence if "ReferencedFileID" in record]
    files = [directory.parent.joinpath(*([name] if isinstance(name, str) else name)) for name in names]
    if absent := [file for file in files if not file.is_file()]:
        raise DataError(
            f"{directory} lists {len(files)} files, but {len(absent)} are missing, such as {absent[0]}. Copy the whole "
            "medium, or give its folder to use the files that are there."
        )
    return files
