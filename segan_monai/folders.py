# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Opens folders and walks their trees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from segan_monai.errors import DataError
from segan_monai.file_kinds import PICTURES, VOLUMES, has_ending


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder in sorted order, and follow links; names with a leading dot are skipped."""
    seen: set[str] = set()  # a link may lead back up
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))
        seen.add(real)


def existing_folder(dataset_dir: str | os.PathLike[str]) -> Path:
    """Return the absolute path of an existing folder.

    Raises:
        DataError: The folder does not exist or is a file.
    """
    folder = Path(dataset_dir).expanduser().absolute()
    if not folder.is_dir():
        found = "it is a file" if folder.exists() else "there is no such folder"
        raise DataError(f"dataset_dir {folder}: {found}. Set --dataset_dir to the folder of the images.")
    return folder


def existing_images(dataset_dir: str | os.PathLike[str]) -> Path:
    """Return the absolute path of an existing folder, or of a file that is a data set of one case.

    Raises:
        DataError: There is neither a folder nor a file. The message has the path as the user gave it.
    """
    path = Path(dataset_dir).expanduser().absolute()
    if not path.exists():
        looked_for = "file" if has_ending(path, (*VOLUMES, *PICTURES)) else "file or folder"
        where = "" if Path(dataset_dir) == path else f" ({path})"
        raise DataError(
            f"dataset_dir {dataset_dir}{where}: there is no such {looked_for}. Set --dataset_dir to the folder of the "
            "images (-i of segan-monai predict: or to an image)."
        )
    return path
