# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Preparation of a single case; an error in it does not affect other cases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segan_monai.errors import reason
from segan_monai.file_kinds import is_picture
from segan_monai.prepare.manifest import file_records, same_content
from segan_monai.prepare.options import PrepareOptions
from segan_monai.prepare.photographs import prepare_photograph
from segan_monai.prepare.volumes import prepare_volumes

_KEPT = ("case", "subject", "grade", "convention", "domain")


def prepare_case(
    work: tuple[dict[str, Any], Mapping[str, Any] | None], root: Path, folder: Path, options: PrepareOptions
) -> dict[str, Any]:
    """Write the files of a case, unless they are up to date.

    Args:
        work: The case, and its manifest record from an earlier run with the same options, or None.
        root: Paths of sources in the manifest are relative to this folder.
        folder: Output folder.
        options: Preparation settings.

    Returns:
        ``case`` and either ``error`` or the record for the manifest: ``entry`` for ``dataset.json``, ``section``,
        ``sources``, ``results``, ``notes``, ``seconds``. ``again`` is True if the files were up to date.
    """
    case, known = work
    try:
        return _prepare_case(case, known, root, folder, options)
    except Exception as error:  # readers raise many types for a bad file
        return {"case": case["case"], "error": reason(error)}


def _prepare_case(
    case: dict[str, Any], known: Mapping[str, Any] | None, root: Path, folder: Path, options: PrepareOptions
) -> dict[str, Any]:
    started = time.perf_counter()
    images = [case["image"]] if isinstance(case["image"], str) else case["image"]
    files = [Path(file) for file in (*images, *([case["label"]] if "label" in case else []))]
    sources = file_records(files, root, known["sources"] if known else ())
    if known and same_content(sources, known["sources"]) and _is_there(known["results"], folder):
        return {**known, "case": case["case"], "sources": sources, "again": True}
    case = {**case, "section": case.get("section") or ("training" if "label" in case else "test")}
    made = (prepare_photograph if is_picture(case["image"]) else prepare_volumes)(case, folder, options)
    notes = made.pop("notes")
    images = [made["image"]] if isinstance(made["image"], str) else made["image"]
    results = [folder / file for file in (*images, *([made["label"]] if "label" in made else []))]
    entry = {**made, **{key: case[key] for key in _KEPT if key in case}}
    if case.get("skull_strip") and not options.strip_skull:
        entry["skull_strip"] = True  # the bundle then strips when it loads the case
    return {
        "case": case["case"],
        "section": case["section"],
        "entry": entry,
        "sources": sources,
        "results": file_records(results, folder),
        "notes": notes,
        "seconds": round(time.perf_counter() - started, 2),
        "again": False,
    }


def _is_there(results: list[dict[str, Any]], folder: Path) -> bool:
    """Check that results are unchanged, by size and modification time, or else by content."""
    files = [folder / record["path"] for record in results]
    return all(file.is_file() for file in files) and same_content(file_records(files, folder, results), results)
