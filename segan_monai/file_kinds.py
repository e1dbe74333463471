# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Detection of image formats by file extension (in any case) and by magic bytes."""

from __future__ import annotations

import os
import re
from pathlib import Path

NIFTI = (".nii", ".nii.gz")
ANALYZE = (".hdr", ".img")
VOLUMES = (*NIFTI, ".mha", ".nrrd")
"""Extensions of the volumes that are searched for in folders."""
PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
OTHER_PICTURES = (".tif", ".tiff", ".gif", ".webp", ".heic")
"""Extensions of pictures that are not read."""

_EXTENSIONS = re.compile(r"(\.nii|\.nrrd|\.mha|\.mhd|\.npy|\.npz|\.jpe?g|\.png|\.bmp)?(\.gz)?$", re.IGNORECASE)


def has_ending(file: str | os.PathLike[str], endings: str | tuple[str, ...]) -> bool:
    """Return whether a file name ends in one of the lower-case endings, ignoring case."""
    return os.fspath(file).lower().endswith(endings)


def file_id(path: str | os.PathLike[str]) -> str:
    """Return a file name without its image extension: ``BRATS_001`` for ``imagesTr/BRATS_001.nii.gz``."""
    return _EXTENSIONS.sub("", Path(path).name, count=1)


def is_picture(file: object) -> bool:
    """Return whether a value is the path of a picture (JPEG, PNG or BMP)."""
    return isinstance(file, str | os.PathLike) and has_ending(file, PICTURES)


def is_gzip(file: Path) -> bool:
    """Return whether the content is gzip-compressed, regardless of the file name."""
    return _start(file, 2) == b"\x1f\x8b"


def is_dicom(file: Path) -> bool:
    """Return whether the content has the DICOM prefix at byte 128; False if the file cannot be opened."""
    try:
        return _start(file, 132)[128:] == b"DICM"
    except OSError:
        return False


def _start(file: Path, count: int) -> bytes:
    with file.open("rb") as stream:
        return stream.read(count)
