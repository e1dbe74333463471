# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Results that are either whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segan_monai.errors import OutputError


def lies_in(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Tell whether a path, which need not exist, is a folder or lies in it, whatever links lead there."""
    folder = Path(folder).expanduser()
    real = Path(path).expanduser().resolve()
    return folder.is_dir() and any(part.exists() and part.samefile(folder) for part in (real, *real.parents))


@contextmanager
def writing(file: str | os.PathLike[str]) -> Iterator[None]:
    """Turn a failure to write into an error that names the file and says what to do.

    Raises:
        OutputError: the block raised an `OSError`: no space left, no permission, a disk that is gone.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(file, error.strerror or str(error)) from error


def cannot_write(file: str | os.PathLike[str], reason: str) -> OutputError:
    """The error of a file that cannot be written."""
    return OutputError(
        f"{file} cannot be written ({reason}). What was complete before is still there. Free space on that disk, or "
        "mend its permissions; then start again: training with --resume true, inference with the same command."
    )


def append_line(file: Path, text: str) -> None:
    """Append a line of a journal; a last line that was cut off when a run was killed stays a line of its own.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(file), file.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(f"{text}\n".encode())


@contextmanager
def whole_file(file: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name in the same folder; what was written there replaces the file when the block has ended.

    Until then the file is what it was before. The name keeps the extension, by which writers choose the format, and
    is hidden, so no search for results finds it: ``.case_seg.part.nii.gz`` for ``case_seg.nii.gz``. The content is on
    the disk before the name is, so that it survives a power failure too.

    Args:
        file: where the result goes; its folder exists.

    Raises:
        OutputError: it cannot be written; nothing is left of the attempt.
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
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
