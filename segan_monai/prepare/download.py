# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Download of a redistributable data set from MONAI's source, verified by checksum."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.error import URLError

from monai.apps import DecathlonDataset, check_hash, download_url

from segan_monai.errors import DataError
from segan_monai.files import cannot_write
from segan_monai.prepare.archives import unpack

_HIPPOCAMPUS = "Task04_Hippocampus"


def download_hippocampus(folder: str | os.PathLike[str]) -> Path:
    """Download the decathlon's Task04_Hippocampus (28 MB, CC BY-SA 4.0) from the source of ``DecathlonDataset``.

    Args:
        folder: Parent folder of ``Task04_Hippocampus``.

    Returns:
        Path of ``Task04_Hippocampus``.

    Raises:
        DataError: See ``download_archive``.
        OutputError: See ``download_archive``.
    """
    resource, md5 = DecathlonDataset.resource[_HIPPOCAMPUS], DecathlonDataset.md5[_HIPPOCAMPUS]
    return download_archive(resource, md5, folder, _HIPPOCAMPUS)


def download_archive(url: str, md5: str, folder: str | os.PathLike[str], name: str) -> Path:
    """Download an archive, verify its checksum and unpack it; each step is atomic.

    The download is skipped if the unpacked folder exists, or an archive with the right checksum beside it. An archive
    with another checksum is renamed, not overwritten.

    Args:
        url: URL of the archive.
        md5: MD5 checksum of the archive.
        folder: Folder for the archive and its content.
        name: Name of the top folder in the archive.

    Returns:
        ``folder/name``.

    Raises:
        DataError: The server cannot be reached, the checksum differs, or the archive has another content.
        OutputError: The folder cannot be written.
    """
    folder = Path(folder).expanduser().absolute()
    result, archive = folder / name, folder / url.rpartition("/")[2]
    if result.exists():
        if (result / "dataset.json").is_file():
            return result
        raise DataError(f"{result} exists and has no dataset.json. Move it elsewhere, or choose another folder.")
    by_hand = (
        f"By hand: download {url} in a browser or on another machine, save it as {archive}, and run this command again."
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if archive.exists() and not check_hash(archive, md5, "md5"):
            archive.replace(archive.with_name(f"{archive.name}.damaged"))
        download_url(url, archive, hash_val=md5, hash_type="md5", progress=sys.stderr.isatty())
    except URLError as error:
        raise DataError(f"{url} cannot be reached ({error.reason}). {by_hand}") from error
    except (RuntimeError, ValueError) as error:  # HashCheckError, or a malformed response
        raise DataError(
            f"{url} was refused: the download does not have the MD5 {md5} of this data set ({type(error).__name__}). "
            f"Nothing was kept. Try again later. {by_hand}"
        ) from error
    except OSError as error:
        raise cannot_write(archive, error.strerror or str(error)) from error
    if not archive.exists():  # MONAI's function does not report a folder without write permission
        raise cannot_write(archive, "no permission")
    part = folder / f".{name}.unpacked"
    unpack(archive, part)
    if not (part / name / "dataset.json").is_file():
        found = ", ".join(sorted(path.name for path in part.iterdir())[:5])
        raise DataError(f"{archive} holds {found}, but no {name}/dataset.json. It is not the expected data set.")
    (part / name).replace(result)
    part.rmdir()
    return result
