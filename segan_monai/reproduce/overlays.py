# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Overlays of a run: which of their keys a config has a place for, and their content in the record of the run."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import MERGE_KEY, merge_kv

from segan_monai.check.config_files import read_config_file
from segan_monai.errors import ConfigError
from segan_monai.reproduce.published import recorded_name


def keys_with_place(config: Mapping[str, Any], overlays: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return those keys of overlays that a config has a place for.

    An id such as ``train#trainer#amp``, also with MONAI's ``+`` in front, has a place where ``train#trainer`` exists:
    in trainings alone. MONAI would stop at it in an evaluation.

    Args:
        config: content of the bundle's config.
        overlays: contents of the overlays, in the order in which they are merged.

    Raises:
        ConfigError: ``+`` is in front of a key that is no object or list.
    """
    parser = ConfigParser(deepcopy(dict(config)))
    found = []
    for overlay in overlays:
        kept = {}
        for key, value in overlay.items():
            *sections, _ = re.split("#|::", key.removeprefix(MERGE_KEY))
            if sections and "#".join(sections) not in parser:
                continue
            kept[key] = value
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of MONAI, for a key that is new
                try:
                    merge_kv(parser, key, deepcopy(value))
                except ValueError as error:
                    raise ConfigError(f"an overlay has the key '{key}': {error} Omit the {MERGE_KEY}.") from error
        found.append(kept)
    return found


def require_places(configs: Mapping[str, Mapping[str, Any]], overlays: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that each key of overlays has a place in one of the configs, see ``keys_with_place``.

    Args:
        configs: contents by name, as for the message.
        overlays: contents by name, in the order in which they are merged.

    Raises:
        ConfigError: A key has none.
    """
    placed = [keys_with_place(config, [*overlays.values()]) for config in configs.values()]
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
