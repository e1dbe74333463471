# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks of configs without instantiation: references, imports, expressions, classes, arguments and required ids."""

from __future__ import annotations

import builtins
import importlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pydoc import locate
from typing import Any

from monai.bundle import ConfigComponent, ConfigExpression, ConfigItem, ConfigParser, ReferenceResolver
from monai.bundle.properties import InferProperties, TrainProperties

from segan_monai.check.config_files import read_configs, run_id_of, unknown_overrides
from segan_monai.check.expressions import bound_names, dotted_names, follow, imported, is_import, parse_expression
from segan_monai.check.report import Report
from segan_monai.nearest import near

__all__ = [
    "check_properties",
    "check_used",
    "dumped",
    "read_configs",
    "run_id_of",
    "unknown_overrides",
    "used_items",
]


def used_items(parser: ConfigParser, roots: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the ids that a run resolves, starting from ``roots`` and from imports, which MONAI evaluates first.

    Returns:
        The ids that exist, and for each id that does not: the item that refers to it.
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
    """Check references, imports, expressions, classes and argument names without instantiation.

    Args:
        parser: the parsed config.
        used: ids that the run resolves.
        missing: ids that do not exist, with the item that refers to each.
        report: receives one row per rule.
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
        return  # builtins have no signature
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
    """Check that the ids required by MONAI exist, for training or for inference and evaluation."""
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
    """Return a text that is equal for equal configs, including those with objects that JSON lacks."""
    return json.dumps(config, sort_keys=True, default=str)
