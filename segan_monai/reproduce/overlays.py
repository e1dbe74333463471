# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Overlays of a run: whether each key has a place in a config of it, and their content in its record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segan_monai.check.config_files import keys_with_place, read_config_file
from segan_monai.errors import ConfigError
from segan_monai.reproduce.published import recorded_name


def require_a_place(configs: Mapping[str, Mapping[str, Any]], overlays: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that each key of overlays has a place in one of the configs, see ``keys_with_place``.

    Args:
        configs: contents by name, as for the message.
        overlays: contents by name, in the order in which they are merged.

    Raises:
        ConfigError: A key has none.
    """
    placed = [keys_with_place(config, overlays.items()) for config in configs.values()]
    for (name, content), *kept in zip(overlays.items(), *placed, strict=True):
        for key in content:
            if not any(key in of_config for of_config in kept):
                raise ConfigError(
                    f"{name} has the key '{key}', and neither {' nor '.join(configs)} has the part that it changes. "
                    "Correct the key."
                )


def contents_of(overlays: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return the content of overlays by their recorded names, without comments (keys that begin with ``_``).

    Raises:
        ConfigError: A file cannot be read.
    """
    found = {}
    for file in overlays:
        content = {key: value for key, value in read_config_file(file).items() if not key.startswith("_")}
        found[recorded_name(file)] = json.loads(json.dumps(content, default=str))  # YAML has dates
    return found


def changed_keys(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what differs between two results of ``contents_of`` in the files of both, such as ``epochs in a.json``."""
    return [
        f"{key} in {name}"
        for name in now
        if name in before
        for key in sorted(before[name].keys() | now[name].keys())
        if (key in before[name]) != (key in now[name]) or before[name].get(key) != now[name].get(key)
    ]
