# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Values of config keys as typed after the short commands: ``t1c,flair`` is a list, ``lesion=1,2;core=2`` regions."""

from __future__ import annotations

from typing import Any

from segan_monai.check.keys import KEYS
from segan_monai.cli.evaluate import parse_regions
from segan_monai.command_line import MONAI_OPTIONS, read_value
from segan_monai.errors import ConfigError
from segan_monai.typed import JSON_LITERALS, is_path_key

_SIGNS = ("$", "@", "%", "{", "[", "(")  # expressions of MONAI and Python literals


def key_value(name: str, text: str | None) -> Any:
    """Return the value of a config key as typed.

    Values are read as ``monai.bundle`` reads them. In addition, a key of ``segan_monai.check.keys.KEYS`` whose value
    may be a list accepts items with commas between them, and ``regions`` accepts ``lesion=1,2;core=2``.

    Args:
        name: config id, such as ``learning_rate`` or ``train#trainer#max_epochs``.
        text: the word after the option; None if there is none, which means true.

    Raises:
        ConfigError: The key is an option of MONAI, or a path without value.
    """
    if name in MONAI_OPTIONS:
        raise ConfigError(
            f"--{name} is an option of python -m monai.bundle run, not a key of the bundle. To add a config, use "
            "--overlay FILE."
        )
    value = read_value(name, text)
    if text is None or is_path_key(name) or text in JSON_LITERALS or text.startswith(_SIGNS):
        return value
    if name == "regions" and "=" in text:
        return parse_regions(text)
    value = list(value) if isinstance(value, tuple) else value
    if name not in KEYS:
        return value
    words = [word.strip() for word in text.split(",")]
    lists = ([read_value(name, word) for word in words if word], words)
    # of a key that may be a text or a list, commas make a list
    readings = (*lists, value) if isinstance(value, str) and len(words) > 1 else (value, *lists)
    return next(filter(KEYS[name].kind.takes, readings), value)
