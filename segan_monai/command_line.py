# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Arguments of a run: parsing of ``monai.bundle run`` command lines, or those that a command of this package gives."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, run
from monai.bundle import update_kwargs as merged_arguments

from segan_monai.bundles_by_name import BUNDLES, bundle_names
from segan_monai.callers import calling
from segan_monai.errors import ConfigError
from segan_monai.json_files import refuse_byte_order_mark
from segan_monai.typed import is_path_key, path_value

logger = logging.getLogger(__name__)

MONAI_OPTIONS = frozenset(
    name
    for function in (run, create_workflow, ConfigWorkflow.__init__)
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD and name != "self"
)
"""Options of ``monai.bundle run`` that are not config keys."""

_FILES = ("config_file", "meta_file", "logging_file", "args_file")
_COMMANDS = ("run", "run_workflow", "check")
_TYPED = "="  # marks words the user typed, to tell them from the ``True`` that fire inserts for a missing value

_given: dict[str, Any] = {}  # arguments of the run that ``given_arguments`` surrounds


def read_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """Parse the arguments of ``python -m monai.bundle run`` with fire, as MONAI does, but keep paths as typed.

    Args:
        argv: arguments, such as ``["training", "--config_file", "['a.json','b.json']", "--learning_rate", "0.1"]``.

    Returns:
        ``run_id``, ``config_file`` and all other arguments, with overrides under their ids. The contents of
        ``args_file`` are included; the command line takes precedence. Paths are text with ``~`` expanded.

    Raises:
        ConfigError: A MONAI option or a path has no value, ``monai.bundle`` would open a different file than the one
            typed, or the args file cannot be read.
    """
    import fire
    from fire.decorators import SetParseFn
    from fire.parser import SeparateFlagArgs

    given: dict[str, Any] = {}

    @SetParseFn(str)
    @functools.wraps(run)
    def keep(*positional: Any, **named: Any) -> None:
        given.update(inspect.signature(run).bind(*positional, **named).arguments)

    words, _ = SeparateFlagArgs(list(argv))  # drops fire's own flags
    fire.Fire(keep, command=list(_marked(words)), name="segan-monai check")
    typed = {**given, **given.get("override", {})}
    typed.pop("override", None)
    read = {name: _read_marked(name, text) for name, text in typed.items() if text is not None}
    args_file = read.pop("args_file", None)
    if isinstance(args_file, str) and Path(args_file).is_file():
        refuse_byte_order_mark(args_file)
    try:
        merged = merged_arguments(args=args_file, **read)
    except Exception as error:  # from the file system, JSON or YAML
        reason = " ".join(str(error).split())
        raise ConfigError(f"args_file {args_file} cannot be read ({reason}). Expected a JSON or YAML file.") from error
    if not isinstance(merged, dict):
        raise ConfigError(f"args_file {args_file} contains a {type(merged).__name__}; expected an object of arguments.")
    return {name: path_value(value) if is_override_of_path(name) else value for name, value in merged.items()}


def is_override_of_path(name: str) -> bool:
    """Return whether an argument overrides a config key whose value is a path."""
    return is_path_key(name) and name not in MONAI_OPTIONS


def _marked(argv: Sequence[str]) -> Iterator[str]:
    for word in argv:
        is_option = word.startswith("--") or re.match("-[a-zA-Z]", word)  # as in fire: -1 is a number
        name, equals, value = word.partition("=")
        if is_option:
            yield f"{name}={_TYPED}{value}" if equals else word
        else:
            yield _TYPED + word


def read_value(name: str, word: str | None) -> Any:
    """Read the value of one option as ``read_arguments`` does.

    Args:
        name: config id or option.
        word: the word after the option; None if there is none, which means ``True``.

    Raises:
        ConfigError: A MONAI option or a path has no value.
    """
    value = _read_marked(name, "True" if word is None else _TYPED + word)
    return path_value(value) if is_override_of_path(name) else value


def _read_marked(name: str, text: str) -> Any:
    from fire.parser import DefaultParseValue

    word = text.removeprefix(_TYPED)
    is_path = is_override_of_path(name)
    missing = text in ("True", "False") or not word
    if missing and (is_path or (name in MONAI_OPTIONS and text != "False")):
        raise ConfigError(
            f"--{name} has no value; expected {'a file or folder' if is_path or name in _FILES else 'one'} after it, "
            f"such as --{name} NAME. Write a value that begins with - as --{name}=-NAME."
        )
    if is_path:
        return word
    value = DefaultParseValue(word)
    several = isinstance(value, list | tuple) and all(isinstance(file, str) for file in value)
    if name in _FILES and not several and value is not False and value != word.strip("'\""):
        raise ConfigError(
            f"--{name} {word}: monai.bundle reads this as {value!r}. Write ./{word} instead, in quotes for your shell."
        )
    return value


@contextmanager
def given_arguments(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Inside the block, ``arguments_of_process`` returns these arguments, in the form of ``read_arguments``."""
    _given.update(arguments)
    try:
        yield
    finally:
        _given.clear()


def arguments_of_process() -> dict[str, Any]:
    """Return the arguments of this process, or an empty dict if it was not started as a run.

    These are the arguments of ``monai.bundle run``, or those of ``given_arguments``.

    Raises:
        ConfigError: See ``read_arguments``.
    """
    if _given:
        return dict(_given)
    command, *words = [*sys.argv[1:], ""]
    if command not in _COMMANDS or not any(re.match("-+(config|args)[_-]file", word) for word in words):
        return {}
    arguments = read_arguments(words[:-1])
    return arguments if arguments.get("config_file") else {}


def overrides_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that override config keys."""
    return {name: value for name, value in arguments.items() if name not in MONAI_OPTIONS}


def config_files(arguments: Mapping[str, Any]) -> list[str]:
    """Return the config files of a command line in merge order.

    Raises:
        ConfigError: No config file is given.
    """
    given = arguments.get("config_file")
    if not given:
        raise ConfigError(
            "no --config_file: pass the file or files as to monai.bundle run, such as \"['a.json']\". To check a short "
            "command, such as segan-monai train BUNDLE DATA, add --check-only to it."
        )
    if isinstance(given, str):
        return given.split(",") if "," in given and not Path(given).is_file() else [given]
    return [str(file) for file in given]


def file_argument(file: str | os.PathLike[str]) -> str:
    """Return a file as a command line argument that ``monai.bundle`` cannot mistake for another value."""
    from fire.parser import DefaultParseValue

    text = os.fspath(file)
    return text if DefaultParseValue(text) == text else f"./{text}"


def bundle_root(name: str) -> str:
    """Find a bundle's folder.

    The first match is returned:

    1. ``DIR``, if ``--config_file DIR/configs/...`` is given, or ``config_file`` from Python, and ``DIR/configs``
       contains ``metadata.json``;
    2. the current folder, if it contains ``configs/metadata.json`` (where the model zoo starts a bundle);
    3. ``bundles/<name>`` below the current folder (the root of a checkout of this project);
    4. the bundle of this package with that name;
    5. the current folder.

    From any other folder, pass ``--bundle_root``.
    """
    for folder in _config_folders():
        if folder.name == "configs" and (folder / "metadata.json").is_file():
            return str(folder.parent)
    if Path("configs/metadata.json").is_file():
        return "."
    below = Path("bundles") / name
    if below.is_dir():
        return str(below)
    if name not in bundle_names():
        return "."
    if calling(ConfigParser):
        logger.warning(
            "The folder of the config is not known, so bundle_root is %s, with its weights. Set it for another.",
            BUNDLES / name,
        )
    return str(BUNDLES / name)


def _config_folders() -> list[Path]:
    """Return the folders of the config files of the command line, or that of the workflow which Python has made."""
    if arguments := arguments_of_process():
        return [Path(file.strip()).parent for file in config_files(arguments)]
    workflow = calling(ConfigWorkflow)
    return [Path(workflow.config_root_path)] if workflow else []
