# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Images in a folder that are not read, named in the log."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from segan_monai.file_kinds import OTHER_PICTURES, has_ending

logger = logging.getLogger(__name__)

OTHER_IMAGES = (".mhd", ".nhdr", ".hdr", ".dcm", ".mgz", *OTHER_PICTURES)
"""Extensions of images that no layout reads."""
_OVERLAY = "_overlay.png"  # of an earlier inference


def warn_of_unread(folder: Path, read: tuple[str, ...], unread: tuple[str, ...] = OTHER_IMAGES) -> None:
    """Name images that are no cases: files with other extensions, and subfolders with images.

    Args:
        folder: folder of the images of cases.
        read: extensions of the cases.
        unread: extensions that are named.
    """
    names = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (_holds(path, (*read, *unread)) if path.is_dir() else _is(path, unread))
    ]
    warn(folder, names, f"Cases are files in the folder itself that end in {', '.join(read)}")


def warn(folder: Path, names: list[str], expected: str) -> None:
    """Log names of files that are omitted, and what is expected; nothing if there are none."""
    if names:
        more = ", ..." if len(names) > 3 else ""
        text = "%s: omitted %s%s. %s; a --datalist may name others."
        logger.warning(text, folder, ", ".join(names[:3]), more, expected)


def _holds(folder: Path, endings: tuple[str, ...]) -> bool:
    return os.access(folder, os.R_OK | os.X_OK) and any(_is(path, endings) for path in folder.iterdir())


def _is(file: Path, endings: tuple[str, ...]) -> bool:
    return has_ending(file, endings) and not has_ending(file, _OVERLAY) and file.is_file()
