# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What the command line of a run says: config files, the bundle's folder, overrides."""

from __future__ import annotations

import ast
import inspect
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from segan_monai.check import read_literals, unknown_overrides
from segan_monai.errors import ConfigError


def bundle_root(name: str) -> str:
    """Find a bundle's folder: that of the config on the command line, the current one, or ``bundles/<name>`` below it.

    A bundle may lie anywhere: ``--config_file DIR/configs/train.json`` with a metadata.json beside it says where. Where
    there is no command line, the model zoo starts in the bundle's folder, and in a checkout of this project one is
    usually at its top. From anywhere else, pass ``--bundle_root``.
    """
    for file in _config_files(sys.argv):
        folder = Path(file).parent
        if folder.name == "configs" and (folder / "metadata.json").is_file():
            return str(folder.parent)
    below = Path("bundles") / name
    return str(below) if not Path("configs/metadata.json").is_file() and below.is_dir() else "."


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


def set_literals(parser: ConfigParser) -> dict[str, Any]:
    """Make ``true``, ``false`` and ``null`` of the command line what they are in JSON.

    `monai.bundle` reads them as strings, and ``--amp false`` would be the true string "false". This runs as the first
    item of ``initialize``, before anything but the arguments of `start_run` has been resolved.
    """
    config: dict[str, Any] = parser.config  # type: ignore[assignment]
    found = read_literals(config)
    for key, value in found.items():
        config[key] = value
        parser.ref_resolver.items[key].update_config(value)
        parser.ref_resolver.resolved_content.pop(key, None)
    return found


def _given_on(argv: list[str]) -> dict[str, str]:
    """Options of a command line and their values, as text."""
    given = {}
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if argument.startswith("--"):
            name, equals, value = argument.removeprefix("--").partition("=")
            given[name] = value if equals else following
    return given


def _config_files(argv: list[str]) -> list[str]:
    """The config files of a command line, in order."""
    files = _given_on(argv).get("config_file", "")
    if not files.startswith(("[", "(")):
        return [file.strip() for file in files.split(",") if file.strip()]  # monai.bundle splits them too
    try:
        return [str(file) for file in ast.literal_eval(files)]
    except (ValueError, SyntaxError):  # monai.bundle has its own way to say so
        return []


def check_overrides(argv: list[str]) -> None:
    """Refuse ``--key`` that the config files do not have; MONAI adds it silently and runs on with the old values."""
    given = _given_on(argv)
    if "config_file" not in given:
        return  # started from Python, not from the command line
    files = given["config_file"]
    config = ConfigParser.load_config_files(ast.literal_eval(files) if files.startswith(("[", "(")) else files)
    names = [name.replace("-", "_") for name in given]  # as fire does
    if unknown := unknown_overrides(files, config, names):
        raise ConfigError(" ".join(unknown))
