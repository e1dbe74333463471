# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Atomic file writes, and digests of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segan_monai.errors import OutputError

_CHUNK = 1 << 20


def lies_in(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder or is inside it, after resolving links. The path need not exist."""
    folder = Path(folder).expanduser()
    real = Path(path).expanduser().resolve()
    return folder.is_dir() and any(part.exists() and part.samefile(folder) for part in (real, *real.parents))


@contextmanager
def writing(file: str | os.PathLike[str]) -> Iterator[None]:
    """Convert an ``OSError`` raised in the block to an ``OutputError`` that names the file and the remedy.

    Raises:
        OutputError: The block raised an ``OSError``: no space left, permission denied, disk disconnected.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(file, error.strerror or str(error)) from error


def sha256_of(file: Path) -> str | None:
    """Return the SHA-256 of the content of a file, in hexadecimal digits; None if it does not exist."""
    if not file.is_file():
        return None
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def cannot_write(file: str | os.PathLike[str], reason: str) -> OutputError:
    """Return the error for a file that cannot be written."""
    return OutputError(
        f"{file} cannot be written ({reason}). Earlier complete results are unchanged. Free space on the disk or fix "
        "the permissions, then start again: training with --resume true, inference with the same command."
    )


def append_line(file: Path, text: str) -> None:
    """Append a line to a file.

    If the last line is incomplete because a run was killed, the new text still starts on a new line.

    Raises:
        OutputError: The file cannot be written.
    """
    with writing(file), file.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(f"{text}\n".encode())


@contextmanager
def whole_file(file: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and move that file to ``file`` when the block succeeds.

    Until then ``file`` is unchanged. The temporary name keeps the extension, from which writers infer the format, and
    is hidden from searches: ``.case_seg.part.nii.gz`` for ``case_seg.nii.gz``. The content is flushed to disk before
    the file is renamed, so the write also survives a power failure.

    Args:
        file: destination; its folder must exist.

    Raises:
        OutputError: The file cannot be written; the temporary file is removed.
    """
    file = Path(file)
    extension = ".nii.gz" if file.name.endswith(".nii.gz") else file.suffix
    temporary = file.with_name(f".{file.name.removesuffix(extension)}.part{extension}")
    try:
        with writing(file):
            yield temporary
            with temporary.open("r+b") as stream:
                os.fsync(stream.fileno())
            temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if os.name == "posix":  # other systems cannot open folders
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(file: str | os.PathLike[str], text: str, errors: str = "strict") -> None:
    """Write text in UTF-8, atomically, see ``whole_file``.

    Args:
        file: destination; its folder must exist.
        text: the content.
        errors: what to do with characters that UTF-8 lacks, such as those of file names in other encodings; see
            ``str.encode``.

    Raises:
        OutputError: The file cannot be written.
    """
    with whole_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors)
