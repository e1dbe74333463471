# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Config values as the user typed them: paths stay text; ``true``, ``false`` and ``null`` have their JSON meaning.

``monai.bundle`` parses values twice before a config is used, and paths must survive both steps:

1. fire converts the command line to Python literals: ``20240131`` becomes a number, ``a,b`` a tuple, and
   ``patient #2`` loses what looks like a comment.
2. MONAI searches every string of a config for references: ``#`` becomes ``::``, and a leading ``$``, ``@`` or ``%``
   is special.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping
from typing import Any

JSON_LITERALS = {"true": True, "false": False, "null": None}

_PATH_ENDINGS = ("_dir", "_file", "_path")
_OTHER_PATHS = ("bundle_root", "datalist", "mlflow", "initial_weights", "localizer_weights", "segmentor_weights")
_MARKS = ("$", "@", "%")
_ESCAPED = str.maketrans({sign: f"\\x{ord(sign):02x}" for sign in "#:@%$"})


def is_path_key(name: str) -> bool:
    """Return whether the value of a key is a path, judged by the suffix of its name or a list of other path keys.

    Args:
        name: config id, such as ``dataset_dir`` or ``cases#datalist``; only its last part is used.
    """
    last = re.split("#|::", name)[-1]
    return last.endswith(_PATH_ENDINGS) or last in _OTHER_PATHS


def path_value(value: Any) -> Any:
    """Return the value of a path key as text with ``~`` expanded; ``null`` becomes None.

    Args:
        value: text, or a number (a JSON file may have one for a folder called ``20240131``), which becomes text.
            Other values are returned unchanged.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return value
    return None if value == "null" else expand_home(value)


def expand_home(text: str) -> str:
    """Expand a leading ``~`` or ``~user``; other text, such as a URL with ``//``, is returned unchanged."""
    return os.path.expanduser(text)  # noqa: PTH111 - Path would rewrite URLs


def config_value(name: str, value: Any) -> Any:
    r"""Escape a value so that ``monai.bundle`` reads it back unchanged from a config.

    A path that MONAI would misread becomes an expression: a Python string without MONAI's special characters, such as
    ``$'patient \x232'`` for ``patient #2``. Other values are returned unchanged.
    """
    if not isinstance(value, str) or not is_path_key(name):
        return value
    if value.startswith(_MARKS) or "#" in value or "::" in value:
        return f"${repr(value).translate(_ESCAPED)}"
    return value


def config_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Escape each setting with ``config_value``."""
    return {name: config_value(name, value) for name, value in settings.items()}


def read_literals(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the top-level keys whose text is ``true``, ``false`` or ``null``, with their JSON values.

    ``monai.bundle`` reads these words from the command line as text, so ``--amp false`` would be the truthy string
    "false".
    """
    return {key: JSON_LITERALS[value] for key, value in config.items() if str(value) in JSON_LITERALS}


def typed_values(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as typed of all keys that ``monai.bundle`` may have misread.

    Args:
        config: content of the config files. Strings that begin with ``$``, ``@`` or ``%`` are left to MONAI, except
            those that ``config_value`` has escaped.
        overrides: values from the command line, see ``segan_monai.command_line.read_arguments``. Their paths are plain
            text, even if they begin with ``$``, ``@`` or ``%``.

    Returns:
        Ids and values of JSON literals and of all paths.
    """
    named = {**config, **overrides}
    found = read_literals({name: value for name, value in named.items() if name == "mlflow" or not is_path_key(name)})
    for name, value in named.items():
        if not is_path_key(name) or name in found:
            continue
        of_config = name not in overrides and isinstance(value, str) and value.startswith(_MARKS)
        if not of_config:
            found[name] = path_value(value)
        elif (text := _literal_text(value)) is not None:
            found[name] = text
    return found


def _literal_text(value: str) -> str | None:
    """Return the text of an expression that is a single Python string literal, else None."""
    try:
        text = ast.literal_eval(value.removeprefix("$"))
    except (ValueError, SyntaxError):
        return None
    return text if isinstance(text, str) else None
