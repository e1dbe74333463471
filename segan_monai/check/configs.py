# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Configs, looked at without building anything: files, keys, references, imports, expressions, classes, arguments."""

from __future__ import annotations

import builtins
import difflib
import importlib
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

from monai.bundle import ConfigComponent, ConfigExpression, ConfigItem, ConfigParser, ReferenceResolver
from monai.bundle.properties import InferProperties, TrainProperties

from segan_monai.check.expressions import bound_names, dotted_names, follow, imported, is_import, parse_expression
from segan_monai.check.report import Report
from segan_monai.command_line import MONAI_OPTIONS, config_files, is_override_of_path, overrides_of
from segan_monai.errors import ConfigError, UnknownKeyError
from segan_monai.json_files import refuse_byte_order_mark
from segan_monai.typed import config_values, typed_values

RUN_IDS = ("training", "evaluating", "inference", "run")


def near(name: str, known: Iterable[str], prefix: str = "") -> str:
    """``Did you mean a or b?``, or nothing if nothing is near."""
    found = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(prefix + other for other in found)}? " if found else ""


def unknown_overrides(files: Any, config: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """What to say of overrides that the config files do not have; MONAI adds them silently and keeps the old values.

    Args:
        files: the config files, for messages.
        config: their merged content.
        names: ids given on the command line, such as ``learning_rate`` or ``train#trainer#max_epochs``.

    Returns:
        A message each.
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
    """Read and merge the config files of a command line, set its overrides, and parse; nothing is run.

    Args:
        arguments: see `read_arguments`.

    Returns:
        The parsed config, with the metadata if there are any.

    Raises:
        ConfigError: a file is missing or damaged; unknown overrides (all of them); a macro that leads nowhere.
    """
    files = config_files(arguments)
    for file in files:
        _read(file)
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
            _read(meta_file)
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
    """Refuse a path that stops `monai.bundle` before a run can say that it is one."""
    if not isinstance(value, str) or not is_override_of_path(name):
        return
    resolved_first = name in ("output_dir", "bundle_root") and value.startswith(("$", "@"))
    if resolved_first or value.startswith("%") or re.search("[@%](#|::){2}", value):
        raise ConfigError(
            f"--{name} {value}: monai.bundle takes $, @ and % for signs of its own here, and stops. Write ./{value}, "
            "or rename that folder."
        )


def _read(file: str | Path) -> None:
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


def run_id_of(parser: ConfigParser, run_id: str) -> str:
    """The id to run.

    Raises:
        ConfigError: the config does not have it.
    """
    if run_id in parser:
        return run_id
    config: Mapping[str, Any] = parser.get()
    known = [name for name in RUN_IDS if name in config]
    raise UnknownKeyError(
        f"nothing to run is called '{run_id}'. {near(run_id, known)}This config has {', '.join(known) or 'none'}."
    )


def used_items(parser: ConfigParser, roots: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Ids that a run resolves, beginning with the given ones, and imports, which MONAI evaluates first of all.

    Returns:
        The ids, and of those that do not exist: which item refers to them.
    """
    items = parser.ref_resolver.items
    todo = [(name, "") for name, item in items.items() if is_import(item.get_config())]
    todo += [(ReferenceResolver.normalize_id(root), "") for root in roots]
    used: dict[str, None] = {}
    missing: dict[str, str] = {}
    while todo:
        name, referred_by = todo.pop(0)
        if name in used:
            continue
        if name not in items:
            missing.setdefault(name, referred_by)
            continue
        used[name] = None
        references = ReferenceResolver.find_refs_in_config(items[name].get_config(), name)
        todo += [(reference, name) for reference in references]
    return list(used), missing


def check_used(parser: ConfigParser, used: Sequence[str], missing: Mapping[str, str], report: Report) -> None:
    """Check references, imports, expressions, classes and the names of their arguments, building nothing.

    Args:
        parser: the parsed config.
        used: ids that the run resolves.
        missing: ids that do not exist, and who refers to them.
        report: gets a row a rule.
    """
    items: dict[str, ConfigItem] = parser.ref_resolver.items
    report.note("references", f"{len(used)} items are used")
    for name, referred_by in missing.items():
        alike = [_shown(other) for other in items if other.count("::") == name.count("::")]
        report.error(
            "references",
            referred_by,
            f"{_place(referred_by)} refers to @{_shown(name)}, which the config does not have. "
            f"{near(_shown(name), alike, '@')}",
        )
    modules = _check_imports(items, used, report)
    names = {**{name: importlib.import_module(name) for name in ("monai", "torch", "numpy")}, **modules}
    names["np"] = names["numpy"]
    expressions = [i for i in used if ConfigExpression.is_expression(items[i].get_config())]
    report.note("expressions", f"{len(expressions)} read")
    components = {i: item for i in used if isinstance(item := items[i], ConfigComponent)}
    report.note("classes", f"{len(components)} found with the arguments that they are given")
    for name in expressions:
        text = items[name].get_config()
        if not is_import(text):
            _check_expression(name, text, names, report)
    for name, component in components.items():
        _check_component(name, component, report)


def _check_imports(items: Mapping[str, ConfigItem], used: Sequence[str], report: Report) -> dict[str, Any]:
    found: dict[str, Any] = {}
    texts = [(name, items[name].get_config()) for name in used if is_import(items[name].get_config())]
    report.note("imports", ", ".join(text.removeprefix("$import ") for _, text in texts))
    for name, text in texts:
        module, member, alias = imported(text)
        try:
            loaded: Any = importlib.import_module(module)
            loaded = getattr(loaded, member) if member else loaded
        except Exception as error:  # a module may raise anything
            report.error(
                "imports",
                name,
                f"{_place(name)}: '{text.removeprefix('$')}' fails ({type(error).__name__}: {error}). Install the "
                "package into this environment, or correct its name.",
            )
            loaded = None
        found[alias] = loaded
    return found


def _check_expression(name: str, text: str, modules: Mapping[str, Any], report: Report) -> None:
    try:
        tree = parse_expression(text)
    except SyntaxError as error:
        report.error("expressions", name, f"{_place(name)}: '{text}' is no Python expression ({error.msg}).")
        return
    known = {*bound_names(tree), ReferenceResolver._vars}  # what a reference becomes once it is resolved
    for root, *attributes in dotted_names(tree):
        if root in known or hasattr(builtins, root):
            continue
        if root not in modules:
            report.error(
                "expressions",
                name,
                f"{_place(name)}: '{text}' uses {root}, which nothing imports. {near(root, modules)}Add "
                f"\"$import {root}\" to 'imports', or write @{root} if it is a key of the config.",
            )
            continue
        reached, absent = follow(modules[root], attributes) if modules[root] is not None else (None, None)
        if absent:
            where = getattr(reached, "__name__", root)
            report.error(
                "expressions",
                name,
                f"{_place(name)}: '{text}': {where} has no {absent}. {near(absent, dir(reached))}",
            )


def _check_component(name: str, component: ConfigComponent, report: Report) -> None:
    config = component.get_config()
    target = config["_target_"]
    if not isinstance(target, str) or target.startswith(("$", "@")) or config.get("_disabled_") is True:
        return
    try:
        found = locate(component.resolve_module_name())
    except Exception as error:  # an import inside may raise anything
        report.error("classes", name, f"{_place(name)}: loading {target} fails ({error}).")
        return
    if found is None:
        known = component.locator._components_table or {}
        report.error(
            "classes",
            name,
            f"{_place(name)}: there is no class or function {target}. {near(target, known)}Give a short name of MONAI "
            "or of segan_monai, or a full path such as torch.optim.Adam.",
        )
        return
    given = {key for key in config if key not in ConfigComponent.non_arg_keys}
    try:
        parameters = inspect.signature(found).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return  # builtins tell nothing
    kinds = {parameter.kind for parameter in parameters.values()}
    named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for argument in sorted(given - set(named)):
            report.error(
                "classes",
                f"{name}::{argument}",
                f"{_place(name)}: {target} takes no '{argument}'. {near(argument, named)}It takes {', '.join(named)}.",
            )
    needed = [n for n in named if parameters[n].default is inspect.Parameter.empty]
    if config.get("_mode_", "default") == "default" and (absent := [n for n in needed if n not in given]):
        report.error(
            "classes",
            name,
            f"{_place(name)}: {target} needs {', '.join(absent)}, which the config does not give it.",
        )


def check_properties(parser: ConfigParser, run_id: str, report: Report) -> None:
    """Look for the ids that MONAI requires of a bundle's training, or of its inference and evaluation."""
    training = run_id == "training" or "train::trainer" in parser
    properties = TrainProperties if training else InferProperties
    entries: list[Any] = list(properties.values())
    required = [entry["id"] for entry in entries if entry["required"]]
    report.note("ids", f"{len(required)} that MONAI requires for {'training' if training else 'inference'}")
    config: Mapping[str, Any] = parser.get()
    for name in required:
        if name not in parser:
            top = name.split("::")[0]
            hint = "" if top in config and top != name else near(name, config)
            report.error("ids", name, f"the config lacks the id {_shown(name)}, which MONAI requires. {hint}")


def _shown(name: str) -> str:
    return name.replace("::", "#")


def _place(name: str) -> str:
    return _shown(name) or "the config"


def dumped(config: Any) -> str:
    """Text of a config that is equal for equal configs, whatever objects it holds."""
    return json.dumps(config, sort_keys=True, default=str)
