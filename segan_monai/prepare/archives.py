# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Archives as the sites hand them out, unpacked whole or not at all."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from segan_monai.errors import DataError
from segan_monai.files import writing

_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar file into a new folder.

    Args:
        archive: the file.
        folder: gets the content, once all of it is there.

    Raises:
        DataError: a damaged archive, or one that would write outside the folder.
        OutputError: no room.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with writing(folder):
            part.mkdir(parents=True)
            if zipfile.is_zipfile(archive):
                _unzip(archive, part)
            else:
                with tarfile.open(archive) as tar:
                    tar.extractall(part, filter="data")
            part.replace(folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{archive} was not unpacked ({type(error).__name__}: {error}). It is damaged, incomplete or would write "
            "outside its folder: download it again from the data set's site."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
                raise zipfile.BadZipFile(f"it holds {name!r}")
        file.extractall(folder)


def archives_in(source: Path) -> list[Path]:
    """The archives that a source is or, as a folder, has in itself."""
    candidates = [source] if source.is_file() else sorted(source.iterdir())
    return [path for path in candidates if path.name.lower().endswith(_ENDINGS) and not path.name.startswith(".")]


def unpacked_bytes(archive: Path) -> int:
    """How much room the content of an archive takes, about."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            return sum(member.file_size for member in file.infolist())
    return archive.stat().st_size * (4 if archive.name.lower().endswith("gz") else 1)


@contextmanager
def unpacked(source: Path, scratch: Path) -> Iterator[Path]:
    """The source as folders: itself, or its archives unpacked beside links to the folders it has.

    An archive beside a folder of its own name is taken to be unpacked already.

    Args:
        source: an archive, or a folder.
        scratch: a folder for what is unpacked; it is gone afterwards.
    """
    todo = [path for path in archives_in(source) if not path.with_name(_stem(path)).is_dir()]
    if not todo:
        yield source
        return
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        for archive in todo:
            folder = scratch / f".{_stem(archive)}"
            unpack(archive, folder)
            for content in sorted(folder.iterdir()):
                # archives of one data set may share a folder at their top, and lie side by side
                target = scratch / (content.name if not (scratch / content.name).exists() else _stem(archive))
                content.replace(target)
        for path in sorted(source.iterdir()) if source.is_dir() else []:
            if path.is_dir() and not (scratch / path.name).exists():
                (scratch / path.name).symlink_to(path, target_is_directory=True)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _stem(archive: Path) -> str:
    name = archive.name
    return next(name[: -len(ending)] for ending in reversed(_ENDINGS) if name.lower().endswith(ending))
