# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Parsing of ``--set KEY=VALUE`` options."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from typing import Any

from segan_monai.errors import ConfigError
from segan_monai.typed import is_path_key, path_value


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` settings.

    Values of path keys are text with ``~`` expanded. Other values are JSON or Python literals, or else text.

    Raises:
        ConfigError: A setting has no ``=`` or no key.
    """
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"cannot parse the setting '{text}'; expected KEY=VALUE, such as epochs=10.")
        settings[key] = path_value(value) if is_path_key(key) else _literal(value)
    return settings


def _literal(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text
