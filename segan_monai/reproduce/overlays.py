# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Content of overlays in the record of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segan_monai.check.config_files import read_config_file


def contents_of(overlays: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return the content of overlays by name, without comments.

    Comments are keys that begin with ``_desc_``, at the top level all that begin with ``_``.

    Args:
        overlays: files by the name to record.

    Raises:
        ConfigError: A file cannot be read.
    """
    found = {}
    for name, file in overlays.items():
        content = {key: value for key, value in read_config_file(file).items() if not str(key).startswith("_")}
        found[name] = _without_comments(json.loads(json.dumps(content, default=str)))  # YAML has dates
    return found


def _without_comments(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_comments(value) for key, value in content.items() if not key.startswith("_desc_")}
    return [_without_comments(value) for value in content] if isinstance(content, list) else content


def by_file_name(overlays: Iterable[Path]) -> dict[str, Path]:
    """Return overlays by their file names, which stay when their folder moves; equal names are numbered."""
    found: dict[str, Path] = {}
    for number, file in enumerate(overlays):
        found[f"{file.name} ({number})" if file.name in found else file.name] = file
    return found


def changed_keys(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what differs between two results of ``contents_of``.

    Returns:
        Keys, such as ``epochs in a.json``, and then the names of files that one of them lacks.
    """
    return [
        f"{key} in {name}"
        for name in now
        if name in before
        for key in sorted(before[name].keys() | now[name].keys())
        if (key in before[name]) != (key in now[name]) or before[name].get(key) != now[name].get(key)
    ] + sorted(before.keys() ^ now.keys())
