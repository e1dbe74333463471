# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The parser whose config is being run: its settings, and the values that were typed for them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from monai.bundle import ConfigParser

from segan_monai.errors import ConfigError
from segan_monai.typed import config_values, is_path_key, typed_values


def run_settings() -> dict[str, Any]:
    """The keys of the config above ``initialize``, which a user may set, with the values that they have in this run.

    For an expression in the config itself: ``$segan_monai.run_settings()``. Functions and the titles of sections, whose
    names begin with ``_``, are omitted.
    """
    parser = parser_of_this_run()
    if parser is None:
        raise ConfigError("run_settings() was called from Python; expected the expression of a config.")
    config: dict[str, Any] = parser.config  # type: ignore[assignment]
    above = takewhile(lambda name: name != "initialize", config)
    names = [name for name in above if name != "imports" and not name.startswith("_")]
    values = {name: parser.get_parsed_content(name) for name in names}
    return {name: value for name, value in values.items() if not callable(value)}


def parser_of_this_run() -> ConfigParser | None:
    """The parser whose config is being evaluated; it gives expressions no other way to itself than the stack."""
    frame = inspect.currentframe()
    while frame is not None:
        parser = frame.f_locals.get("self")
        if isinstance(parser, ConfigParser):
            return parser
        frame = frame.f_back
    return None


def set_typed_values(
    parser: ConfigParser, files: Mapping[str, Any] | None, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Give a parsed config the values that were typed, where `monai.bundle` has read something else.

    This runs as the first item of ``initialize``, before anything but the arguments of `start_run` has been resolved;
    these are resolved anew.

    Args:
        parser: of the run.
        files: content of the config files; None for a run from Python. Then ``::`` in a path is taken for the ``#``
            that MONAI has replaced.
        overrides: see `typed_values`.

    Returns:
        The values that were typed, for the record of the run.
    """
    if files is None:
        config: dict[str, Any] = parser.config  # type: ignore[assignment]
        files = {
            name: value.replace("::", "#") if isinstance(value, str) and is_path_key(name) else value
            for name, value in config.items()
        }
    typed = typed_values(files, overrides)
    changed = {name: value for name, value in config_values(typed).items() if parser.get(name) != value}
    if changed:
        parser.update(changed)
        parser.parse()
    return typed
