# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A digest of a case's image, by which it is known again after its files were renamed or moved."""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

_BLOCK = 64 * 1024
_GZIP = b"\x1f\x8b"
_NIFTI = tuple(size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big"))  # sizes of headers
_READ_WHOLE = 64 * 2**20
_DATA_FILE = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)(.+)$", re.IGNORECASE | re.MULTILINE)


def case_digest(case: Mapping[str, Any]) -> str | None:
    """Digest the image of a case; its names, folders and label map do not count.

    At most three blocks of 64 KiB of each file are read, so the cost does not depend on the size of the volume. The
    digest of a gzip file covers the beginning of its content, and the checksum and length at its end. The same volume
    therefore has the same digest whatever the compression level, and the name and time in the gzip header. A NIfTI of
    up to 64 MiB that is not compressed is read completely and has the digest of its compressed form. The same voxels in
    another format or below a changed header have another digest.

    Args:
        case: with ``image``: a file, a folder of slices, or a list of files, one per channel.

    Returns:
        16 hexadecimal digits; None if the case has no image, or if a file is empty or cannot be read, which its
        loader will say.
    """
    image = case.get("image")
    paths = [image] if isinstance(image, str | os.PathLike) else list(image or ())
    found = hashlib.sha256()
    try:
        files = [file for path in paths if path for file in _files(Path(path))]
        if not files or not all(file.stat().st_size for file in files):
            return None
        for file in files:
            with file.open("rb") as stream:
                found.update(_digest_of_file(stream))
    except (OSError, ValueError, StopIteration):
        return None
    return found.hexdigest()[:16]


def image_files(path: Path) -> list[Path]:
    """Return all files that determine the voxels of an image.

    Args:
        path: file or folder that exists.

    Returns:
        The files of a folder, or the file itself, followed by the file with the voxels if it is a header. A header that
        cannot be read is returned alone: its loader will say so.
    """
    if path.is_dir():
        return _files(path)
    with suppress(OSError, ValueError):
        return list(dict.fromkeys([path, *_files(path)]))
    return [path]


def _files(path: Path) -> list[Path]:
    """Return the files with the voxels: those of a folder, or the one beside a header that all cases may share."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    if path.suffix.lower() == ".hdr":
        images = [path.with_suffix(ending) for ending in (".img", ".img.gz", ".IMG")]
        return [next(file for file in [*images, path] if file.is_file())]
    if path.suffix.lower() in (".mhd", ".nhdr"):
        with path.open("rb") as stream:
            named = _DATA_FILE.search(stream.read(_BLOCK))
        if named and (named[1].split()[:1] == [b"LIST"] or b"%" in named[1]):
            raise ValueError(f"{path} has one file per slice")
        data = path.parent / os.fsdecode(named[1].strip()) if named else path
        return [data if data.is_file() else path]
    return [path]


def _digest_of_file(stream: BinaryIO) -> bytes:
    size = stream.seek(0, os.SEEK_END)
    start = _read(stream, 0)
    if start.startswith(_GZIP):
        trailer = _read(stream, max(size - 8, 0))  # CRC-32 and length of the content
        try:
            content = zlib.decompressobj(wbits=31).decompress(start, _BLOCK // 2)  # stored: nearly as long as its block
        except zlib.error:
            content = b""
        # several members end in the trailer of the last one, which is empty in files of bgzip
        if content and int.from_bytes(trailer[4:], "little") >= len(content):
            return hashlib.sha256(content + trailer).digest()
    if start[:4] in _NIFTI and size <= _READ_WHOLE:
        stream.seek(0)
        content = stream.read()
        trailer = zlib.crc32(content).to_bytes(4, "little") + size.to_bytes(4, "little")
        return hashlib.sha256(content[: _BLOCK // 2] + trailer).digest()
    blocks = start + _read(stream, max((size - _BLOCK) // 2, _BLOCK)) + _read(stream, max(size - _BLOCK, 2 * _BLOCK))
    return hashlib.sha256(f"{size} ".encode() + blocks).digest()


def _read(stream: BinaryIO, position: int) -> bytes:
    stream.seek(position)
    return stream.read(_BLOCK)
