# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Walks folder trees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder in sorted order, and follow links; names with a leading dot are skipped."""
    seen: set[str] = set()  # a link may lead back up
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))
        seen.add(real)
