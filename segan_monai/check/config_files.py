# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads configs with the overrides of a command line, and refuses unknown keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from segan_monai.check.overlay_keys import is_run, require_places
from segan_monai.command_line import MONAI_OPTIONS, config_files, is_override_of_path, overrides_of
from segan_monai.errors import ConfigError, UnknownKeyError
from segan_monai.json_files import refuse_byte_order_mark
from segan_monai.nearest import near
from segan_monai.trained.record import user_settings
from segan_monai.typed import config_values, typed_values


def unknown_overrides(files: Any, config: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return a message for each override that the config files lack; MONAI would add these keys silently.

    Args:
        files: the config files, for messages.
        config: their merged content.
        names: ids given on the command line, such as ``learning_rate`` or ``train#trainer#max_epochs``.

    Returns:
        One message per unknown override.
    """
    known = sorted(key for key in config if not key.startswith("_"))
    messages = []
    for name in names:
        *sections, last = re.split("#|::", name)
        inside: Any = config
        for depth, part in enumerate([*sections, last]):
            if isinstance(inside, list):
                options = [str(index) for index in range(len(inside))]
            elif isinstance(inside, Mapping):
                options = list(inside) if depth else known
            else:
                messages.append(
                    f"unknown key --{name}: in {files}, '{'#'.join(sections[:depth])}' is {inside!r} and has no keys "
                    "of its own. Set that key itself."
                )
                break
            if part not in options:
                if depth == 0 and part in MONAI_OPTIONS:
                    break
                if depth == 0:
                    messages.append(
                        f"unknown key --{name}: {files} has no such key. {near(part, known, '--')}"
                        f"Known keys: {', '.join(sorted(user_settings(dict(config))))}."
                    )
                elif depth < len(sections):  # a last part may be a new argument of a component
                    start = "--" + "#".join(sections[:depth]) + "#"
                    messages.append(
                        f"unknown key --{name}: {files} has no '{part}' in '{'#'.join(sections[:depth])}'. "
                        f"{near(part, options, start)}Known there: {', '.join(options)}."
                    )
                break
            inside = inside[int(part)] if isinstance(inside, list) else inside[part]
    return messages


def read_configs(arguments: Mapping[str, Any]) -> ConfigParser:
    """Read and merge the config files of a command line, apply its overrides, and parse the result without running it.

    Args:
        arguments: see ``read_arguments``.

    Returns:
        The parsed config, with the metadata if a file exists.

    Raises:
        UnknownKeyError: overrides are unknown; all are listed.
        ConfigError: a file is missing or damaged; a config has no place for a key of an overlay; a macro cannot be
            resolved.
    """
    files = config_files(arguments)
    check_overlay_files(files)
    config = ConfigParser.load_config_files(files)
    overrides = overrides_of(arguments)
    if unknown := unknown_overrides(arguments["config_file"], config, overrides):
        raise UnknownKeyError(" ".join(unknown))
    for name, value in overrides.items():
        _check_first_sign(name, value)
    typed = typed_values(config, overrides)
    parser = ConfigParser(config)
    beside = Path(files[0]).parent / "metadata.json"
    metadata: Any = arguments.get("meta_file") or (str(beside) if beside.is_file() else None)
    if metadata:
        for meta_file in [metadata] if isinstance(metadata, str) else metadata:
            read_config_file(meta_file)
        parser.read_meta(metadata)
    parser.update({**overrides, **config_values(typed)})
    try:
        parser.parse()
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(
            f"{arguments['config_file']}: a macro (text that starts with %) leads nowhere ({error}). Expected the id "
            "of another part of the config, such as %training, or a file and an id in it, such as %other.json#network."
        ) from error
    return parser


def _check_first_sign(name: str, value: Any) -> None:
    """Raise ``ConfigError`` for a path that ``monai.bundle`` would parse as an expression, a reference or a macro."""
    if not isinstance(value, str) or not is_override_of_path(name):
        return
    resolved_first = name in ("output_dir", "bundle_root") and value.startswith(("$", "@"))
    if resolved_first or value.startswith("%") or re.search("[@%](#|::){2}", value):
        raise ConfigError(
            f"--{name} {value}: monai.bundle takes $, @ and % for signs of its own here, and stops. Write ./{value}, "
            "or rename that folder."
        )


def read_config_file(file: str | Path) -> dict[str, Any]:
    """Read one JSON or YAML config.

    Raises:
        ConfigError: The file is missing or damaged, or holds no object.
    """
    path = Path(file)
    if not path.is_file():
        beside = [other.name for other in path.parent.glob("*.json")] if path.parent.is_dir() else []
        raise ConfigError(
            f"config file {path}: there is no such file. {near(path.name, beside, f'{path.parent}/')}"
            f"In {path.parent} there is {', '.join(sorted(beside)) or 'no config'}."
        )
    refuse_byte_order_mark(path)
    try:
        content = ConfigParser.load_config_file(path)
    except Exception as error:  # of JSON and YAML
        reason = " ".join(str(error).split())
        raise ConfigError(f"config file {path} cannot be read ({reason}). Correct it there.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config file {path} holds a {type(content).__name__}; expected an object of keys.")
    return content


def check_overlay_files(files: Sequence[str]) -> None:
    """Check that each key of overlays has a place in the config that they are merged over, see ``require_places``.

    Args:
        files: the config, then the overlays.
    """
    config, *overlays = files
    require_places({config: read_config_file(config)}, {file: read_config_file(file) for file in overlays})


def run_id_of(parser: ConfigParser, run_id: str) -> str:
    """Return the id to run, if it is one.

    MONAI evaluates any part of a config, such as ``train``, and does nothing with most of them.

    Raises:
        UnknownKeyError: the config lacks the id, or there is nothing to run.
    """
    config: Mapping[str, Any] = parser.get()
    known = [name for name in config if is_run(name, config[name])]
    if run_id in parser and is_run(run_id, parser[run_id]):
        return run_id
    found = f"'{run_id}' is a part of the config that does not run anything"
    if run_id not in parser:
        found = f"nothing to run is called '{run_id}'"
    raise UnknownKeyError(f"{found}. {near(run_id, known)}This config has {', '.join(known) or 'none'}.")
