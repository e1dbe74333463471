# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings of a config on the command line."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from typing import Any

from segan_monai.errors import ConfigError
from segan_monai.typed import is_path_key, path_value


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE``: paths as text with ``~`` expanded, other values as JSON or Python literals, else as text.

    Raises:
        ConfigError: a text without ``=``.
    """
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"cannot read the setting '{text}'; expected KEY=VALUE, for example epochs=10.")
        settings[key] = path_value(value) if is_path_key(key) else _literal(value)
    return settings


def _literal(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text
