# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Kinds of image files, by the endings of their names in any case and by the marks in their first bytes."""

from __future__ import annotations

import os
import re
from pathlib import Path

NIFTI = (".nii", ".nii.gz")
ANALYZE = (".hdr", ".img")
VOLUMES = (*NIFTI, ".mha", ".nrrd")
"""Endings of the volumes that a folder is searched for."""
PICTURES = (".jpg", ".jpeg", ".png", ".bmp")

_EXTENSIONS = re.compile(r"(\.nii|\.nrrd|\.mha|\.mhd|\.npy|\.npz|\.jpe?g|\.png|\.bmp)?(\.gz)?$", re.IGNORECASE)


def has_ending(file: str | os.PathLike[str], endings: str | tuple[str, ...]) -> bool:
    """Whether the name of a file ends in one of the endings, which are in lower case: ``A.NII.GZ`` is a NIfTI."""
    return os.fspath(file).lower().endswith(endings)


def file_id(path: str | os.PathLike[str]) -> str:
    """The name of a file without the extension of an image: ``BRATS_001`` for ``imagesTr/BRATS_001.nii.gz``."""
    return _EXTENSIONS.sub("", Path(path).name, count=1)


def is_picture(file: object) -> bool:
    """Whether a value is the path of a picture."""
    return isinstance(file, str | os.PathLike) and has_ending(file, PICTURES)


def is_gzip(file: Path) -> bool:
    """Whether the content is compressed by gzip, whatever the name says."""
    return _start(file, 2) == b"\x1f\x8b"


def is_dicom(file: Path) -> bool:
    """Whether the content has the mark of DICOM at byte 128; False for what cannot be opened."""
    try:
        return _start(file, 132)[128:] == b"DICM"
    except OSError:
        return False


def _start(file: Path, count: int) -> bytes:
    with file.open("rb") as stream:
        return stream.read(count)
