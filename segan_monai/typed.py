# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Values as the user typed them: paths are text, ``true``, ``false`` and ``null`` what they are in JSON.

`monai.bundle` reads values twice before a config is used. First fire makes Python literals of the command line:
``20240131`` becomes a number, ``a,b`` a tuple, and ``patient #2`` loses what looks like a comment. Then every text of
a config is searched for references: ``#`` becomes ``::``, and ``$``, ``@`` and ``%`` at the beginning have a meaning. A
path has to survive both.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping
from typing import Any

JSON_LITERALS = {"true": True, "false": False, "null": None}

_PATH_ENDINGS = ("_dir", "_file", "_path")
_OTHER_PATHS = ("bundle_root", "datalist", "mlflow", "localizer_weights", "segmentor_weights")
_MARKS = ("$", "@", "%")
_ESCAPED = str.maketrans({sign: f"\\x{ord(sign):02x}" for sign in "#:@%$"})


def is_path_key(name: str) -> bool:
    """Whether the value of a key is a path: by the ending of its name, or one of the bundles' other keys of paths.

    Args:
        name: id in a config, such as ``dataset_dir`` or ``cases#datalist``; its last part counts.
    """
    last = re.split("#|::", name)[-1]
    return last.endswith(_PATH_ENDINGS) or last in _OTHER_PATHS


def path_value(value: Any) -> Any:
    """What was typed for a key of paths: text, with ``~`` expanded; ``null`` is None.

    Args:
        value: text; a number, which a JSON file may have for a folder called ``20240131``, becomes text. Anything else
            is returned as it is.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return value
    return None if value == "null" else expand_home(value)


def expand_home(text: str) -> str:
    """Replace ``~`` or ``~user`` at the beginning; all other text, such as an address with ``//``, stays as it is."""
    return os.path.expanduser(text)  # noqa: PTH111 - a Path would rewrite addresses


def config_value(name: str, value: Any) -> Any:
    r"""Value of a key in a form that `monai.bundle` gives back unchanged, to be written into a config.

    A path that MONAI would read otherwise becomes an expression, a Python string without any of MONAI's signs:
    ``$'patient \x232'`` for ``patient #2``. Other values stay as they are.
    """
    if not isinstance(value, str) or not is_path_key(name):
        return value
    if value.startswith(_MARKS) or "#" in value or "::" in value:
        return f"${repr(value).translate(_ESCAPED)}"
    return value


def config_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with each value in the form of `config_value`."""
    return {name: config_value(name, value) for name, value in settings.items()}


def read_literals(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the top keys whose text is ``true``, ``false`` or ``null``, with what it means in JSON.

    `monai.bundle` reads them from the command line as text, and ``--amp false`` would be the true string "false".
    """
    return {key: JSON_LITERALS[value] for key, value in config.items() if str(value) in JSON_LITERALS}


def typed_values(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Find the values that a config must have and `monai.bundle` may have read otherwise.

    Args:
        config: content of the config files. Text of theirs that begins with ``$``, ``@`` or ``%`` is left to MONAI,
            but for what `config_value` has written.
        overrides: values of the command line, see `segan_monai.command_line.read_arguments`. Their paths are text,
            whatever they begin with.

    Returns:
        Ids and values: JSON's literals, and all paths.
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
    """The text of an expression that is a Python string and nothing else; None for any other."""
    try:
        text = ast.literal_eval(value.removeprefix("$"))
    except (ValueError, SyntaxError):
        return None
    return text if isinstance(text, str) else None
