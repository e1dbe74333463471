# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads configs with the overrides of a command line, and refuses unknown keys."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import MERGE_KEY, merge_kv

from segan_monai.command_line import MONAI_OPTIONS, config_files, is_override_of_path, overrides_of
from segan_monai.errors import ConfigError, UnknownKeyError
from segan_monai.json_files import refuse_byte_order_mark
from segan_monai.typed import config_values, typed_values

_NO_RUNS = ("imports", "initialize", "finalize")  # evaluated by MONAI itself


def near(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ``Did you mean a or b? ``, or an empty string if no known name is similar."""
    found = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(prefix + other for other in found)}? " if found else ""


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
                        f"Known keys: {', '.join(known)}."
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
    first, *overlays = files
    require_places({first: read_config_file(first)}, {file: read_config_file(file) for file in overlays})
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


def keys_with_place(
    config: Mapping[str, Any], overlays: Iterable[tuple[str, Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Return those keys of overlays that a config has a place for.

    An id such as ``train#trainer#amp``, also with MONAI's ``+`` in front, has a place where ``train#trainer`` exists:
    in trainings alone. MONAI would stop at it in an evaluation.

    Args:
        config: content of the bundle's config.
        overlays: names, for messages, and contents of the overlays, in the order in which they are merged.

    Returns:
        For each overlay its keys that have a place, with their values.

    Raises:
        ConfigError: ``+`` is in front of a key that is no object or list, or an id leads into a value or beyond a list.
    """
    parser = ConfigParser(deepcopy(dict(config)))
    found = []
    for name, overlay in overlays:
        kept = {}
        for key, value in overlay.items():
            *sections, _ = re.split("#|::", key.removeprefix(MERGE_KEY))
            if sections and "#".join(sections) not in parser:
                continue
            kept[key] = value
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of MONAI, for a key that is new
                try:
                    merge_kv(parser, key, deepcopy(value))
                except (ValueError, IndexError, TypeError) as error:
                    merged = key.startswith(MERGE_KEY) and key.removeprefix(MERGE_KEY) in parser
                    repair = f"Omit the {MERGE_KEY}." if merged else "Correct the key."
                    reason = str(error).removesuffix(".")
                    raise ConfigError(
                        f"{name} has the key '{key}', which cannot be set ({reason}). {repair}"
                    ) from error
        found.append(kept)
    return found


def require_places(configs: Mapping[str, Mapping[str, Any]], overlays: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that each key of overlays has a place in one of the configs, see ``keys_with_place``.

    Args:
        configs: contents by name, as for the message.
        overlays: contents by name, in the order in which they are merged.

    Raises:
        ConfigError: A key has none; the message suggests the nearest ones.
    """
    placed = [keys_with_place(config, overlays.items()) for config in configs.values()]
    for (name, content), *kept in zip(overlays.items(), *placed, strict=True):
        for key in content:
            if not any(key in of_config for of_config in kept):
                raise ConfigError(
                    f"{name} has the key '{key}', and {' and '.join(configs)} "
                    f"{'has' if len(configs) == 1 else 'have'} no place for it. {_nearest(key, configs.values())}"
                    "Correct the key, or omit the overlay here if it is for another run, such as the training."
                )


def _nearest(key: str, configs: Iterable[Mapping[str, Any]]) -> str:
    """Return ``Did you mean ...? `` for the first part of an id that a config lacks."""
    plus = MERGE_KEY if key.startswith(MERGE_KEY) else ""
    parts = re.split("#|::", key.removeprefix(MERGE_KEY))
    for config in configs:
        inside: Any = config
        for depth, part in enumerate(parts):
            if not isinstance(inside, Mapping):
                break
            if part not in inside:
                if found := near(part, inside, plus + "".join(f"{section}#" for section in parts[:depth])):
                    return found
                break
            inside = inside[part]
    return ""


def run_id_of(parser: ConfigParser, run_id: str) -> str:
    """Return the id to run, if it is one.

    MONAI evaluates any part of a config, such as ``train``, and does nothing with most of them.

    Raises:
        UnknownKeyError: the config lacks the id, or there is nothing to run.
    """
    config: Mapping[str, Any] = parser.get()
    known = [name for name in config if _is_run(name, config[name])]
    if run_id in parser and _is_run(run_id, parser[run_id]):
        return run_id
    found = f"'{run_id}' is a part of the config that does not run anything"
    if run_id not in parser:
        found = f"nothing to run is called '{run_id}'"
    raise UnknownKeyError(f"{found}. {near(run_id, known)}This config has {', '.join(known) or 'none'}.")


def _is_run(name: str, content: Any) -> bool:
    """Return whether a part of a config is a run: a list of expressions, or an expression that calls ``run``."""
    if name in _NO_RUNS:
        return False
    if isinstance(content, str):
        return content.startswith("$") and ".run(" in content
    return isinstance(content, list) and bool(content) and all(str(item).startswith("$") for item in content)
