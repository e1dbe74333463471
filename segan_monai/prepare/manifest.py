# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Manifest of a prepared data set: SHA-256 of the sources and results of each case, options, versions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segan_monai.data.case_digest import image_files
from segan_monai.data.prepared import MADE_BY, MANIFEST
from segan_monai.errors import DataError
from segan_monai.files import sha256_of
from segan_monai.json_files import read_json, read_json_lines

JOURNAL = ".manifest.jsonl"
"""One line per case since the last write of the manifest; rewriting the manifest per case would take minutes."""
_PACKAGES = ("segan-monai", "monai", "nibabel", "numpy", "pillow", "SimpleITK")


def file_records(files: Sequence[Path], root: Path, known: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return path, size, modification time and SHA-256 of files.

    Args:
        files: The files; the voxel file of an Analyze, MetaImage or NRRD header is included.
        root: Paths below this folder are stored relative to it.
        known: Records of an earlier run. A file with the same path, size and time is not read again.
    """
    earlier = {(record["path"], record["bytes"], record["modified_ns"]): record["sha256"] for record in known}
    records = []
    for file in files:
        for part in image_files(file) if file.exists() else [file]:
            status = part.stat()
            path = os.path.relpath(part, root) if part.is_relative_to(root) else str(part)
            mark = (path, status.st_size, status.st_mtime_ns)
            sha256 = earlier.get(mark) or sha256_of(part)
            records.append(dict(zip(("path", "bytes", "modified_ns", "sha256"), (*mark, sha256), strict=True)))
    return records


def same_content(records: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> bool:
    """Check that two lists of records have the same paths and checksums."""
    first, second = ([(record["path"], record["sha256"]) for record in some] for some in (records, others))
    return first == second


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of a prepared folder, updated from the journal; return None if there is none.

    Raises:
        DataError: The manifest is damaged, or was written by another program.
    """
    file = folder / MANIFEST
    if not file.exists():
        return None
    try:
        manifest = read_json(file)
        if manifest["made_by"] == MADE_BY and isinstance(manifest["cases"], dict):
            manifest["cases"] |= _of_journal(folder / JOURNAL, manifest["options"])
            return manifest
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}). Delete it with the folder, or choose a new one.") from error
    raise DataError(f"{file} was not written by {MADE_BY}. Choose a new folder.")


def _of_journal(file: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Read the records of cases prepared with these options; the last line may be truncated."""
    lines = (line for line in read_json_lines(file) if isinstance(line, list) and len(line) == 3)
    return {str(case): record for made_with, case, record in lines if made_with == options}


def versions() -> dict[str, str]:
    """Return the versions of the packages that determine the result."""
    return {name: version(name) for name in _PACKAGES}
