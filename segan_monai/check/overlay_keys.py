# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Keys of overlays: those that a config has a place for, and a refusal of the others."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import MERGE_KEY, merge_kv

from segan_monai.bundles_by_name import BUNDLES, bundle_names
from segan_monai.check.keys import KEYS
from segan_monai.errors import ConfigError
from segan_monai.json_files import read_json_object
from segan_monai.nearest import near

OF_RUNS = ("train", "evaluate", "inference")
"""Names of the configs of a bundle."""

OF_MONAI = ("imports", "initialize", "finalize")
"""Keys that MONAI itself evaluates."""


def keys_with_place(
    config: Mapping[str, Any], overlays: Iterable[tuple[str, Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Return those keys of overlays that a config has a place for.

    An id such as ``train#trainer#amp``, also with MONAI's ``+`` in front, has a place where ``train#trainer`` exists:
    in trainings alone. MONAI would stop at it in an evaluation.

    Args:
        config: content of the bundle's config.
        overlays: names, for messages, and contents of the overlays, in the order in which they are merged.

    Returns:
        For each overlay its keys that have a place, with their values.

    Raises:
        ConfigError: ``+`` is in front of a key that is no object or list, or an id leads into a value or beyond a list.
    """
    parser = ConfigParser(deepcopy(dict(config)))
    found = []
    for name, overlay in overlays:
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
                except (ValueError, IndexError, TypeError) as error:
                    merged = key.startswith(MERGE_KEY) and key.removeprefix(MERGE_KEY) in parser
                    repair = f"Omit the {MERGE_KEY}." if merged else "Correct the key."
                    reason = str(error).removesuffix(".")
                    raise ConfigError(
                        f"{name} has the key '{key}', which cannot be set ({reason}). {repair}"
                    ) from error
        found.append(kept)
    return found


def unread_keys(configs: Mapping[str, Mapping[str, Any]], overlays: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the keys at the top of overlays that nothing reads; MONAI adds them silently, whatever their name.

    Read are the keys of the configs, of the other runs of their bundle and of the bundles of this package; runs; and
    keys that one of the contents refers to. Names that begin with an underscore are comments.

    Args:
        configs: contents by file.
        overlays: contents by name.

    Returns:
        The keys as the overlays have them, without an id that leads into another part.
    """
    known = {*_keys_of_package(), *(key for file, config in configs.items() for key in (*config, *_keys_beside(file)))}
    contents = json.dumps([*configs.values(), *overlays.values()], default=str)
    found = []
    for content in overlays.values():
        for key, value in content.items():
            top = re.split("#|::", key.removeprefix(MERGE_KEY))[0]
            if not (top in known or top.startswith("_") or is_run(top, value) or _refers_to(contents, top)):
                found.append(key)
    return found


def require_places(configs: Mapping[str, Mapping[str, Any]], overlays: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that each key of overlays has a place in one of the configs, and that something can read it.

    See ``keys_with_place`` for ids that lead into a part, and ``unread_keys`` for keys at the top.

    Args:
        configs: contents by file.
        overlays: contents by name, in the order in which they are merged.

    Raises:
        ConfigError: A key has no place, or nothing reads it; the message suggests the nearest ones.
    """
    if not overlays:
        return
    placed = [keys_with_place(config, overlays.items()) for config in configs.values()]
    unread = unread_keys(configs, overlays)
    have = f"{' and '.join(configs)} {'has' if len(configs) == 1 else 'have'}"
    for (name, content), *kept in zip(overlays.items(), *placed, strict=True):
        for key in content:
            has_place = any(key in of_config for of_config in kept)
            if has_place and key not in unread:
                continue
            reason = f"and {have} no place for it"
            if has_place:
                reason = f"which nothing reads: {have} no such key, and no part of them refers to it"
            raise ConfigError(
                f"{name} has the key '{key}', {reason}. {_nearest_place(key, configs.values())}"
                "Correct the key, or omit the overlay here if it is for another run, such as the training."
            )


@cache
def _keys_of_package() -> frozenset[str]:
    files = (BUNDLES / name / "configs" / f"{run}.json" for name in bundle_names() for run in OF_RUNS)
    return frozenset((*KEYS, *OF_MONAI, *(key for file in files for key in read_json_object(file))))


def _keys_beside(file: str) -> list[str]:
    """Return the keys of the other runs of a bundle, such as those of its training beside its evaluation."""
    found: list[str] = []
    for other in (Path(file).with_name(run + end) for run in OF_RUNS for end in (".json", ".yaml", ".yml")):
        if other.is_file():
            with suppress(Exception):  # of JSON and YAML; a damaged file is not what runs
                content = ConfigParser.load_config_file(other)
                found += content if isinstance(content, dict) else []
    return found


def _refers_to(contents: str, key: str) -> bool:
    return re.search(rf"[@%:#]{re.escape(key)}(?![0-9A-Za-z_])", contents) is not None


def _nearest_place(key: str, configs: Iterable[Mapping[str, Any]]) -> str:
    """Return ``Did you mean ...? `` for the first part of an id that a config lacks."""
    plus = MERGE_KEY if key.startswith(MERGE_KEY) else ""
    parts = re.split("#|::", key.removeprefix(MERGE_KEY))
    for config in configs:
        inside: Any = config
        for depth, part in enumerate(parts):
            if not isinstance(inside, Mapping):
                break
            if part not in inside:
                if found := near(part, inside, plus + "".join(f"{section}#" for section in parts[:depth])):
                    return found
                break
            inside = inside[part]
    return ""


def is_run(name: str, content: Any) -> bool:
    """Return whether a part of a config is a run: a list of expressions, or an expression that calls ``run``."""
    if name in OF_MONAI:
        return False
    if isinstance(content, str):
        return content.startswith("$") and ".run(" in content
    return isinstance(content, list) and bool(content) and all(str(item).startswith("$") for item in content)
