# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""``model.json``: the settings that the network in ``model.pt`` was trained with, as plain values."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, DataError
from segan_monai.files import sha256_of
from segan_monai.json_files import read_json_object, write_json

logger = logging.getLogger(__name__)

RULES = "region_rules"
"""Setting that is chosen after the training."""
CHOSEN = "region_rules_chosen"
_MARKS = ("$", "@", "%")  # MONAI evaluates texts that begin with them


def settings_file(weights: str | os.PathLike[str]) -> Path:
    """Return the path of the settings that belong to a file of weights: ``model.json`` for ``model.pt``."""
    return Path(weights).with_suffix(".json")


def write_trained_settings(weights: Path, record: Mapping[str, Any]) -> None:
    """Write the settings beside weights, with the SHA-256 digests of the weights and of ``split.json`` beside them.

    Args:
        weights: the file of weights, written before.
        record: see ``record_of_training``.

    Raises:
        OutputError: The file cannot be written.
    """
    files = {"weights": weights, "split": weights.with_name("split.json")}
    digests = {name: {"file": file.name, "sha256": sha256_of(file)} for name, file in files.items() if file.is_file()}
    write_json(settings_file(weights), {**record, **digests})


def write_region_rules(weights: Path, rules: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Add rules of post-processing to the settings beside weights; later runs use them as the other settings.

    Args:
        weights: the file of weights.
        rules: numbers of ``RegionRule`` by region; empty if no rule helps.
        chosen: how they were chosen: ``cases`` by name, and the Dice before and after by region.

    Raises:
        ConfigError: The settings are missing or damaged.
        OutputError: The file cannot be written.
    """
    read_trained_settings(weights)  # refuses a damaged file
    record = read_json_object(settings_file(weights))
    record["settings"][RULES] = dict(rules) or None
    record[CHOSEN] = dict(chosen)
    write_json(settings_file(weights), record)


def cases_of_region_rules(weights: str | os.PathLike[str]) -> list[str]:
    """Return the names of the cases on which the rules of post-processing were chosen; empty without rules."""
    try:
        chosen = read_json_object(settings_file(weights)).get(CHOSEN, {})
    except FileNotFoundError:
        return []
    return [str(case) for case in chosen.get("cases", ())]


def read_trained_settings(weights: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the settings that a network was trained with.

    Weights or a split that have changed since are named in a warning. No value is evaluated.

    Args:
        weights: the file of weights.

    Returns:
        Config keys and their values; empty for weights without such a file, as earlier versions wrote them.

    Raises:
        ConfigError: The file is damaged, or a value is not a plain value; or the weights are of a pre-training, and
            segment nothing.
    """
    file, weights = settings_file(weights), Path(weights)
    record = _read(weights)
    if is_of_pretraining(record):
        raise ConfigError(
            f"{weights} is of a pre-training: its network reconstructs images and segments nothing. Begin a training "
            f"with it: --initial_weights {weights}."
        )
    for described in _changed(file, record):
        logger.warning(
            "%s has changed since %s was written. If it is of another training, copy the %s of that training too, or "
            "delete the one here.",
            described,
            file,
            file.name,
        )
    return record.get("settings", {})


def read_initial_settings(weights: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the settings of weights with which a training begins; those of a pre-training serve, too.

    Args:
        weights: the file of weights.

    Returns:
        Config keys and their values; empty for weights without such a file.

    Raises:
        ConfigError: The file is damaged, or a value is not a plain value.
    """
    return _read(Path(weights)).get("settings", {})


def _read(weights: Path) -> dict[str, Any]:
    """Read the record beside weights, whose ``settings`` are plain values; empty if there is none.

    Raises:
        ConfigError: The file is damaged, or a value is not a plain value.
    """
    file = settings_file(weights)
    remedy = f"Copy it again from the training's output folder, or delete it and set the keys of {weights} yourself."
    try:
        record = read_json_object(file, remedy)
    except FileNotFoundError:
        return {}
    except DataError as error:
        raise ConfigError(str(error)) from error
    settings = record.get("settings")
    if not isinstance(settings, dict):
        raise ConfigError(f"{file} has no 'settings'; expected an object of config keys and their values. {remedy}")
    for key, value in settings.items():
        if key.startswith("_") or not _is_plain(value):
            raise ConfigError(
                f"{file}: the value of '{key}' is {value!r}; expected a plain value, which MONAI does not evaluate (no "
                f"text that begins with $, @ or %, no key that begins with _). {remedy}"
            )
    if record.get("network") == "LSNet" and "slice_size" in settings:
        # earlier versions resized planes to the networks' input, and cut RoIs from that
        settings.setdefault("plane_size", settings["slice_size"])
    return record


def is_of_pretraining(record: Mapping[str, Any]) -> bool:
    """Tell whether a record of settings is of a training without labels, see ``configs/pretraining.json``."""
    return bool(record.get("pretraining"))


def changed_files(weights: str | os.PathLike[str]) -> list[Path]:
    """Return the weights, and the split beside them, if they have changed since their settings were written."""
    file = settings_file(weights)
    return _changed(file, read_json_object(file)) if file.is_file() else []


def _changed(file: Path, record: Mapping[str, Any]) -> list[Path]:
    """Return the files beside settings that have another digest than the settings say."""
    entries = [entry for name in ("weights", "split") if isinstance(entry := record.get(name), dict)]
    described = [(file.with_name(Path(str(entry.get("file"))).name), entry.get("sha256")) for entry in entries]
    return [path for path, digest in described if path.is_file() and sha256_of(path) != digest]


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(not key.startswith(("_", *_MARKS)) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return not (isinstance(value, str) and value.startswith(_MARKS))
