# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Atomic unpacking of zip and tar archives."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from segan_monai.errors import DataError
from segan_monai.files import writing

_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
_ENCRYPTED = 1  # bit of a member's flags


def is_zip(file: Path) -> bool:
    """Return whether a path is a zip file, judged by its content."""
    return file.is_file() and zipfile.is_zipfile(file)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar file into a new folder.

    Args:
        archive: The file.
        folder: The folder to create; it appears once all files are unpacked.

    Raises:
        DataError: The archive is damaged, would write outside the folder, or is a zip file that is encrypted or whose
            compression Python does not have (Deflate64).
        OutputError: There is not enough space.
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
    except NotImplementedError as error:
        found = str(error).rstrip(".")
        raise _to_unpack_by_hand(archive, f"({found}). Expected the usual compression, Deflate.") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{archive} was not unpacked ({type(error).__name__}: {error}). It is damaged, incomplete or would write "
            "outside its folder: download it again from the data set's site."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:
            member.filename = member.filename.replace("\\", "/")  # of programs that ignore the specification
            path = PurePosixPath(member.filename)
            if path.is_absolute() or ".." in path.parts:
                raise zipfile.BadZipFile(f"it holds {member.orig_filename!r}")
            if member.flag_bits & _ENCRYPTED:
                raise _to_unpack_by_hand(
                    archive, f"({member.filename} is encrypted). Expected a zip file without a password."
                )
        file.extractall(folder, members)


def _to_unpack_by_hand(archive: Path, cause: str) -> DataError:
    folder = archive.with_name(_stem(archive))
    return DataError(
        f'{archive} was not unpacked {cause} Unpack it by hand into a folder, with 7-Zip: 7z x "{archive}" '
        f'-o"{folder}". Then repeat the command; if it names the file, name that folder instead.'
    )


def archives_in(source: Path) -> list[Path]:
    """Return the source if it is an archive, or the archives directly in a source folder."""
    candidates = [source] if source.is_file() else sorted(source.iterdir())
    return [path for path in candidates if path.name.lower().endswith(_ENDINGS) and not path.name.startswith(".")]


def unpacked_bytes(archive: Path) -> int:
    """Estimate the unpacked size of an archive in bytes."""
    with suppress(zipfile.BadZipFile, NotImplementedError), zipfile.ZipFile(archive) as file:
        return sum(member.file_size for member in file.infolist())
    return archive.stat().st_size * (4 if archive.name.lower().endswith("gz") else 1)


@contextmanager
def unpacked(source: Path, scratch: Path) -> Iterator[Path]:
    """Yield a folder of the unpacked source.

    This is the source itself if it has no archives. Otherwise it is ``scratch``, with the unpacked archives and links
    to the folders and other files of the source. An archive beside a folder of the same name counts as unpacked.

    Args:
        source: An archive, or a folder.
        scratch: Temporary folder for the unpacked archives; removed on exit.
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
                # archives of a data set may have the same top folder
                target = scratch / (content.name if not (scratch / content.name).exists() else _stem(archive))
                content.replace(target)
        archives = archives_in(source)
        for path in sorted(source.iterdir()) if source.is_dir() else []:
            if path not in archives and not (scratch / path.name).exists():
                (scratch / path.name).symlink_to(path, target_is_directory=path.is_dir())
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _stem(archive: Path) -> str:
    name = archive.name
    stems = (name[: -len(ending)] for ending in reversed(_ENDINGS) if name.lower().endswith(ending))
    return next(stems, f"{name}_unpacked")
