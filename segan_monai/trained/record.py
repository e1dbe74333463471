# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Which settings of a training belong to its weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any

import monai
import torch
from monai.bundle import ConfigParser, ReferenceResolver

from segan_monai import _version
from segan_monai.typed import is_path_key

FREE = frozenset(
    {
        *("device", "amp", "num_workers", "seed"),  # of the machine and the run
        *("window_overlap", "window_batch_size", "max_rois"),  # accuracy against time
        *("patch_stride", "simulation", "split_by", "annotated_slices"),  # of the data
    }
)
"""Keys of network, preprocessing or inferer that may differ in every run."""

OF_RESULTS = frozenset({"spacing_known"})
"""Keys that only later runs have. They are recorded if an overlay of the training sets them."""

ONLY_ON = frozenset({"pad_small_images"})
"""Switches that are recorded if they are on: off says that no image of the training needed it, not that none may."""

ADJUSTABLE = (
    OF_RESULTS
    | ONLY_ON
    | {"mirror_axes", "mirror_rois", "test_boxes", "region_rules", "ignore_label", "background_labels"}
)
"""Keys that later runs take from the training, and that a user may set otherwise: they change no weight."""

OF_CASES = ("cases", "split", "domains", "label_regions")
"""Items that depend on the cases; their settings, such as folds, are not those of the network."""


def user_settings(config: dict[str, Any]) -> list[str]:
    """Return the keys of a config above ``initialize``, without imports and section titles."""
    above = takewhile(lambda name: name != "initialize", config)
    return [name for name in above if name != "imports" and not name.startswith("_")]


def settings_of_training(parser: ConfigParser) -> dict[str, Any]:
    """Return the settings that belong to the weights of a training, without building its network.

    They are all keys that network, preprocessing and inferer refer to, directly or through other items, except paths,
    ``FREE`` and those of ``ONLY_ON`` that are off; and ``OF_RESULTS``. ``regions`` are the label values by name also if
    the config has ``"auto"``.

    Args:
        parser: the parser of the training config.

    Returns:
        Plain values by key.
    """
    config: dict[str, Any] = parser.config  # type: ignore[assignment]
    preprocessing = _preprocessing(config)
    referred = _referred_by(parser, ("network_def", preprocessing, "validate::preprocessing", "validate::inferer"))
    settings = {}
    for key in dict.fromkeys([*user_settings(config), *(key for key in config if key in OF_RESULTS)]):
        if key not in referred | OF_RESULTS or key in FREE or is_path_key(key):
            continue
        value = parser.get_parsed_content("label_regions" if key == "regions" and "label_regions" in parser else key)
        if key in ONLY_ON and not value:
            continue
        try:
            settings[key] = json.loads(json.dumps(value))
        except TypeError:  # an object, such as a device
            continue
    return settings


def _preprocessing(config: dict[str, Any]) -> str:
    """Return the id of the preprocessing."""
    return "preprocessing" if "preprocessing" in config else "validate::preprocessing"


def record_of_training(parser: ConfigParser) -> dict[str, Any]:
    """Return everything that a training's network depends on and that later runs need.

    Args:
        parser: the parser of the training config.

    Returns:
        ``bundle``, ``settings`` (see ``settings_of_training``), ``network`` (its class), ``preprocessing`` (classes of
        the transforms, in order) and ``versions``, and ``pretraining`` if it trains without labels; all plain values
        that JSON can store.
    """
    config: dict[str, Any] = parser.config  # type: ignore[assignment]
    steps: Any = parser.get_parsed_content(_preprocessing(config))
    root = Path(parser.get_parsed_content("bundle_root")).resolve().name if "bundle_root" in config else ""
    return {
        "bundle": root,
        "settings": settings_of_training(parser),
        "network": type(parser.get_parsed_content("network_def")).__name__,
        "preprocessing": [type(step).__name__ for step in getattr(steps, "transforms", steps)],
        "versions": {"segan-monai": _version.__version__, "torch": torch.__version__, "monai": monai.__version__},
        **({"pretraining": True} if parser.get("train#trainer#_target_") == "ReconstructionTrainer" else {}),
    }


def references(parser: ConfigParser, name: str) -> set[str]:
    """Return the ids that an item of a parsed config refers to directly; empty for an unknown id."""
    return set(ReferenceResolver.find_refs_in_config(parser[name], name)) if name in parser else set()


def _referred_by(parser: ConfigParser, roots: Iterable[str]) -> set[str]:
    """Return the ids that roots refer to, and ``regions``, but not what only the cases depend on."""
    todo, found = set(roots), {"regions"}
    while todo:
        name = todo.pop()
        if name in found or name in OF_CASES:
            continue
        found.add(name)
        todo |= references(parser, name)
    return found
