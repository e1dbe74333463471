# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads a command line of ``monai.bundle run``: its options, its overrides and its file of further arguments."""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow, create_workflow, run
from monai.bundle import update_kwargs as merged_arguments

from segan_monai.errors import ConfigError
from segan_monai.json_files import refuse_byte_order_mark
from segan_monai.typed import is_path_key, path_value

MONAI_OPTIONS = frozenset(
    name
    for function in (run, create_workflow, ConfigWorkflow.__init__)
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD and name != "self"
)
"""Options of ``monai.bundle run`` that are no keys of a config."""

_FILES = ("config_file", "meta_file", "logging_file", "args_file")
_COMMANDS = ("run", "run_workflow", "check")
_TYPED = "="  # marks a word of the user's, so that it differs from the ``True`` that fire puts for a missing value


def read_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """Read arguments of ``python -m monai.bundle run`` as it does, by fire, but paths as they were typed.

    Args:
        argv: such as ``["training", "--config_file", "['a.json','b.json']", "--learning_rate", "0.1"]``.

    Returns:
        ``run_id``, ``config_file`` and whatever else is given, overrides under their ids. What a file given as
        ``args_file`` holds is part of it; the command line wins. Paths are text with ``~`` expanded.

    Raises:
        ConfigError: an option of MONAI's or a path has no value; `monai.bundle` would look for another file than the
            one that was typed; the args_file cannot be read.
    """
    import fire
    from fire.decorators import SetParseFn
    from fire.parser import SeparateFlagArgs

    given: dict[str, Any] = {}

    @SetParseFn(str)
    @functools.wraps(run)
    def keep(*positional: Any, **named: Any) -> None:
        given.update(inspect.signature(run).bind(*positional, **named).arguments)

    words, _ = SeparateFlagArgs(list(argv))  # without fire's own flags
    fire.Fire(keep, command=list(_marked(words)), name="segan-monai check")
    typed = {**given, **given.get("override", {})}
    typed.pop("override", None)
    read = {name: _read_value(name, text) for name, text in typed.items() if text is not None}
    args_file = read.pop("args_file", None)
    if isinstance(args_file, str) and Path(args_file).is_file():
        refuse_byte_order_mark(args_file)
    try:
        merged = merged_arguments(args=args_file, **read)
    except Exception as error:  # of the file system, JSON and YAML
        reason = " ".join(str(error).split())
        raise ConfigError(f"args_file {args_file} cannot be read ({reason}). Expected a JSON or YAML file.") from error
    if not isinstance(merged, dict):
        raise ConfigError(f"args_file {args_file} holds a {type(merged).__name__}; expected an object of arguments.")
    return {name: path_value(value) if is_override_of_path(name) else value for name, value in merged.items()}


def is_override_of_path(name: str) -> bool:
    """Whether an argument is a key of a config whose value is a path."""
    return is_path_key(name) and name not in MONAI_OPTIONS


def _marked(argv: Sequence[str]) -> Iterator[str]:
    for word in argv:
        is_option = word.startswith("--") or re.match("-[a-zA-Z]", word)  # as fire has it: -1 is a number
        name, equals, value = word.partition("=")
        if is_option:
            yield f"{name}={_TYPED}{value}" if equals else word
        else:
            yield _TYPED + word


def _read_value(name: str, text: str) -> Any:
    from fire.parser import DefaultParseValue

    word = text.removeprefix(_TYPED)
    is_path = is_override_of_path(name)
    missing = text in ("True", "False") or not word
    if missing and (is_path or (name in MONAI_OPTIONS and text != "False")):
        raise ConfigError(
            f"--{name} has no value; expected {'a file or folder' if is_path or name in _FILES else 'one'} after it, "
            f"such as --{name} NAME. A value that begins with - is given as --{name}=-NAME."
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


def arguments_of_process() -> dict[str, Any]:
    """The arguments that this process was started with; empty if it was not started as ``monai.bundle run``.

    Raises:
        ConfigError: see `read_arguments`.
    """
    command, *words = [*sys.argv[1:], ""]
    if command not in _COMMANDS or not any(re.match("-+(config|args)[_-]file", word) for word in words):
        return {}
    arguments = read_arguments(words[:-1])
    return arguments if arguments.get("config_file") else {}


def overrides_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that are keys of a config."""
    return {name: value for name, value in arguments.items() if name not in MONAI_OPTIONS}


def config_files(arguments: Mapping[str, Any]) -> list[str]:
    """The config files of a command line, in the order in which they are merged.

    Raises:
        ConfigError: none is given.
    """
    given = arguments.get("config_file")
    if not given:
        raise ConfigError("no --config_file: give the file or files as to monai.bundle run, such as \"['a.json']\".")
    if isinstance(given, str):
        return given.split(",") if "," in given and not Path(given).is_file() else [given]
    return [str(file) for file in given]


def file_argument(file: str | os.PathLike[str]) -> str:
    """A file as a word of a command line that `monai.bundle` takes for this file and nothing else."""
    from fire.parser import DefaultParseValue

    text = os.fspath(file)
    return text if DefaultParseValue(text) == text else f"./{text}"


def bundle_root(name: str) -> str:
    """Find a bundle's folder: that of the config on the command line, the current one, or ``bundles/<name>`` below it.

    A bundle may lie anywhere: ``--config_file DIR/configs/train.json`` with a metadata.json beside it says where. Where
    there is no command line, the model zoo starts in the bundle's folder, and in a checkout of this project one is
    usually at its top. From anywhere else, pass ``--bundle_root``.
    """
    arguments = arguments_of_process()
    for file in config_files(arguments) if arguments else ():
        folder = Path(file.strip()).parent
        if folder.name == "configs" and (folder / "metadata.json").is_file():
            return str(folder.parent)
    below = Path("bundles") / name
    return str(below) if not Path("configs/metadata.json").is_file() and below.is_dir() else "."
