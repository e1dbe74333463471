# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Search space of a sweep: a JSON file with the range or the choices of each key."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segan_monai.check.keys import KEYS
from segan_monai.errors import ConfigError
from segan_monai.json_files import read_json_object
from segan_monai.nearest import near

EXPECTED = (
    'expected {"low": 1e-5, "high": 1e-3, "log": true} for a range of numbers (whole numbers if both limits are, with '
    'an optional "step"), or {"choices": [16, 32]}'
)


@dataclass(frozen=True)
class Space:
    """Search space.

    Attributes:
        ranges: range or choices by config key, as in the file.
    """

    ranges: Mapping[str, Mapping[str, Any]]

    def distributions(self) -> dict[str, Any]:
        """Return the space as Optuna's distributions; choices that are no scalars are JSON text there."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, Any] = {}
        for key, given in self.ranges.items():
            if "choices" in given:
                found[key] = CategoricalDistribution([_as_scalar(choice) for choice in given["choices"]])
            elif _is_whole(given):
                step = given.get("step", 1)
                found[key] = IntDistribution(given["low"], given["high"], log=given.get("log", False), step=step)
            else:
                log, step = given.get("log", False), given.get("step")
                found[key] = FloatDistribution(float(given["low"]), float(given["high"]), log=log, step=step)
        return found

    def settings(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return drawn values as values of config keys."""
        return {key: self._value(key, value) for key, value in drawn.items()}

    def _value(self, key: str, drawn: Any) -> Any:
        for choice in self.ranges[key].get("choices", ()):
            if _as_scalar(choice) == drawn and type(_as_scalar(choice)) is type(drawn):
                return choice
        return drawn


def read_space(file: Path, keys: Collection[str]) -> Space:
    """Read a search space.

    Args:
        file: JSON file with an object: config key to range or choices.
        keys: top keys of the bundle's ``train.json``.

    Raises:
        ConfigError: The file does not exist, a key is none of the bundle's, or a range has another form or values that
            the key does not accept.
        DataError: The file is no JSON object.
    """
    try:
        content = read_json_object(file, "Correct the file.")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {file}; expected a JSON file with the search space.") from error
    if not content:
        raise ConfigError(f"{file} is empty; expected at least one config key, such as learning_rate.")
    for key, given in content.items():
        if key.split("#")[0] not in keys:
            raise ConfigError(f"{file}: unknown key '{key}': train.json has no such key. {near(key, keys)}".rstrip())
        if not isinstance(given, dict) or not _has_form(given):
            raise ConfigError(f"{file}: '{key}' is {json.dumps(given)}; {EXPECTED}.")
        for value in given.get("choices", (given.get("low"), given.get("high"))):
            if key in KEYS and not KEYS[key].kind.takes(value):
                raise ConfigError(f"{file}: '{key}' cannot be {json.dumps(value)}; expected {KEYS[key].kind.expected}.")
    return Space(content)


def _has_form(given: Mapping[str, Any]) -> bool:
    if "choices" in given:
        choices = given["choices"]
        return set(given) == {"choices"} and isinstance(choices, list) and len(choices) >= 2
    if not {"low", "high"} <= set(given) <= {"low", "high", "log", "step"}:
        return False
    if not all(_is_number(given[limit]) for limit in ("low", "high")) or given["low"] >= given["high"]:
        return False
    log, step = given.get("log", False), given.get("step")
    if not isinstance(log, bool) or (log and (given["low"] <= 0 or step is not None)):
        return False
    return step is None or (_is_number(step) and step > 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(given: Mapping[str, Any]) -> bool:
    return all(isinstance(given.get(name, 1), int) for name in ("low", "high", "step"))


def _as_scalar(choice: Any) -> Any:
    return json.dumps(choice) if isinstance(choice, list | dict) else choice
