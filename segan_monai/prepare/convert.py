# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Preparation of a single case; an error in it does not affect other cases."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segan_monai.errors import reason
from segan_monai.file_kinds import is_picture
from segan_monai.prepare.manifest import file_records, same_content
from segan_monai.prepare.options import PrepareOptions
from segan_monai.prepare.photographs import prepare_photograph
from segan_monai.prepare.volumes import prepare_volumes

_CONSUMED = ("image", "label", "section", "channels", "tissue_values", "skull_strip", "series")
_NAMING_FILES = ("image", "label", "series")


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
        ``fields``, ``sources``, ``results``, ``notes``, ``seconds``. ``again`` is True if the files were up to date.
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
    fields = _fields(case)
    case = {**case, "section": case.get("section") or ("training" if "label" in case else "test")}
    made = (prepare_photograph if is_picture(case["image"]) else prepare_volumes)(case, folder, options)
    notes = made.pop("notes")
    images = [made["image"]] if isinstance(made["image"], str) else made["image"]
    results = [folder / file for file in (*images, *([made["label"]] if "label" in made else []))]
    entry = {**made, **{key: value for key, value in case.items() if key not in _CONSUMED}}
    if case.get("skull_strip") and not options.strip_skull:
        entry["skull_strip"] = True  # the bundle then strips when it loads the case
    return {
        "case": case["case"],
        "section": case["section"],
        "entry": entry,
        "fields": fields,
        "sources": sources,
        "results": file_records(results, folder),
        "notes": notes,
        "seconds": round(time.perf_counter() - started, 2),
        "again": False,
    }


def forget_changed(known: dict[str, Any], cases: Iterable[Mapping[str, Any]]) -> bool:
    """Remove the records of cases whose fields have changed, such as the section, channels or fold.

    Records of earlier versions, which have no ``fields``, count as changed. Files are compared by ``prepare_case``.

    Args:
        known: Records by case, as in the manifest; changed in place.
        cases: Cases from ``segan_monai.prepare.sources``.

    Returns:
        Whether a record was removed.
    """
    changed = [case["case"] for case in cases if case["case"] in known and _is_changed(case, known[case["case"]])]
    for name in changed:
        del known[name]
    return bool(changed)


def _is_changed(case: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    return record.get("fields") != _fields(case) or ("label" in record["entry"]) != ("label" in case)


def _fields(case: Mapping[str, Any]) -> Any:
    """Return the fields of a case that name no files, as they are read from JSON."""
    return json.loads(json.dumps({key: value for key, value in case.items() if key not in _NAMING_FILES}))


def _is_there(results: list[dict[str, Any]], folder: Path) -> bool:
    """Check that results are unchanged, by size and modification time, or else by content."""
    files = [folder / record["path"] for record in results]
    return all(file.is_file() for file in files) and same_content(file_records(files, folder, results), results)
