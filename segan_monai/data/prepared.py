# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Recognizes a folder whose preparation has not ended."""

from __future__ import annotations

from pathlib import Path

from segan_monai.errors import DataError
from segan_monai.json_files import read_json

MANIFEST = "manifest.json"
MADE_BY = "segan-monai prepare"


def refuse_unfinished(folder: Path) -> None:
    """Raise DataError if a folder has the manifest of ``segan-monai prepare`` and no ``dataset.json``."""
    if (folder / "dataset.json").exists() or not (folder / MANIFEST).is_file():
        return
    try:
        made_by = read_json(folder / MANIFEST)["made_by"]
    except (ValueError, KeyError, TypeError):  # another program's
        return
    if made_by == MADE_BY:
        raise DataError(
            f"{folder}: the preparation has not ended: there is a {MANIFEST} of {MADE_BY}, but no dataset.json. Images "
            f"may be missing, or have been made with other options. Repeat the command {MADE_BY}."
        )
