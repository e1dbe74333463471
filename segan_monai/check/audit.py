# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Static audit of configs: lists the code that a config would run, without running it."""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from monai.bundle import ConfigComponent, ConfigExpression, ConfigItem

from segan_monai.check.config_files import read_configs
from segan_monai.check.expressions import attributes, dotted_names, follow, imported, is_import, parse_expression
from segan_monai.check.report import counted
from segan_monai.command_line import config_files

TRUSTED = ("torch", "monai", "segan_monai", "ignite")
_HARMLESS = frozenset(
    [
        "abs",
        "all",
        "any",
        "bool",
        "dict",
        "divmod",
        "enumerate",
        "filter",
        "float",
        "frozenset",
        "int",
        "isinstance",
        "issubclass",
        "len",
        "list",
        "map",
        "max",
        "min",
        "print",
        "range",
        "reversed",
        "round",
        "set",
        "slice",
        "sorted",
        "str",
        "sum",
        "tuple",
        "type",
        "zip",
        "True",
        "False",
        "None",
    ]
)
# parts of the trusted packages that load code or data from other places
_LOAD_EXTERNALLY = (
    "torch.hub",
    "torch.load",
    "torch.serialization",
    "torch.jit._serialization",
    "torch.package",
    "torch.utils.cpp_extension",
    "torch.utils.model_zoo",
    "torch.utils._python_dispatch",
    "torch._ops",
    "torch._classes",
    "monai.apps.utils",
    "monai.bundle",
    "monai.utils.module",
    "monai.utils.misc.run_cmd",
)


class Item(NamedTuple):
    """One import, class, expression or Python file that a config would run.

    Attributes:
        kind: ``import``, ``class`` or ``expression``; ``python file`` for a file in the bundle that an import may load.
        text: source text in the config; short class names are followed by their full path.
        places: ids where the text occurs.
        mark: reason for a closer look; empty if only torch, monai, segan_monai and ignite are used.
    """

    kind: str
    text: str
    places: tuple[str, ...]
    mark: str


def audit_config(arguments: Mapping[str, Any]) -> list[Item]:
    """List every import, class and ``$`` expression in the configs and overrides of a command line.

    Nothing in the config is run, no module is imported for it, and only the config files are read. The marks help a
    human reader. They are not a sandbox: Python code can hide what it does.

    Args:
        arguments: see ``read_arguments``.

    Returns:
        Items that would be run: marked items first, otherwise in config order.

    Raises:
        ConfigError: The configs cannot be read.
    """
    parser = read_configs(arguments)
    items: dict[str, ConfigItem] = parser.ref_resolver.items
    modules: dict[str, str] = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}
    for item in items.values():
        if is_import(item.get_config()):
            module, member, alias = imported(item.get_config())
            modules[alias] = f"{module}.{member}" if member else module
    found: dict[tuple[str, str, str], list[str]] = {}
    for name, item in items.items():
        text = item.get_config()
        if isinstance(item, ConfigComponent):
            if ConfigExpression.is_expression(item.get_config()["_target_"]):
                continue  # listed as an expression
            entry = ("class", *_audit_class(item))
        elif is_import(text):
            entry = ("import", text.removeprefix("$"), _audit_path(_imported_path(text)))
        elif ConfigExpression.is_expression(text):
            entry = ("expression", text, _audit_expression(text, modules))
        else:
            continue
        found.setdefault(entry, []).append(name.replace("::", "#"))
    listed = [Item(kind, text, tuple(places), mark) for (kind, text, mark), places in found.items()]
    return sorted(listed + _python_files(config_files(arguments)), key=lambda item: not item.mark)


def format_audit(items: Sequence[Item]) -> str:
    """Format one line per item, marked items first, and a line of counts."""
    lines = []
    for item in items:
        where = item.places[0] + (f" and {len(item.places) - 1} more" if len(item.places) > 1 else "")
        lines.append(f"{'!' if item.mark else ' '} {item.kind:11} {item.text}    [{where}]")
        if item.mark:
            lines.append(f"  {'':11} ^ {item.mark}")
    marked = sum(bool(item.mark) for item in items)
    kinds = {kind: sum(item.kind == kind for item in items) for kind in dict.fromkeys(item.kind for item in items)}
    counts = [counted(count, kind, "es" if kind == "class" else "s") for kind, count in sorted(kinds.items())]
    lines.append(f"{', '.join(counts)}; {marked} to look at, outside {', '.join(TRUSTED)}. Nothing was run.")
    return "\n".join(lines)


def _imported_path(text: str) -> str:
    module, member, _ = imported(text)
    return f"{module}.{member}" if member else module


def _audit_class(component: ConfigComponent) -> tuple[str, str]:
    target = component.get_config()["_target_"]
    if not isinstance(target, str):
        return repr(target), "not a class name"
    if target.startswith("@"):
        return target, ""
    path = str(component.resolve_module_name())
    return (target if path == target else f"{target} = {path}"), _audit_path(path)


def _audit_path(path: str) -> str:
    """Return why a dotted path needs a closer look, or "". Only packages that are already imported are followed."""
    top = path.split(".")[0]
    if top not in TRUSTED and not (top == "numpy" and path == "numpy"):
        return f"outside: {top} is not a trusted package"
    if top not in sys.modules:
        return ""
    reached, absent = follow(importlib.import_module(top), path.split(".")[1:])
    if absent:
        return f"{top} has no {path.removeprefix(top + '.')}"
    return _audit_object(reached, path)


def _audit_object(reached: Any, path: str) -> str:
    owner = reached.__name__ if isinstance(reached, ModuleType) else str(getattr(reached, "__module__", None) or "")
    full = owner if isinstance(reached, ModuleType) else f"{owner}.{getattr(reached, '__name__', '')}"
    if isinstance(reached, ModuleType) or callable(reached):
        if owner and owner.split(".")[0] not in (*TRUSTED, "numpy"):
            # torch.os.system is os.system
            return f"outside: {path} is {full}"
        for prefix in _LOAD_EXTERNALLY:
            if f"{full}.".startswith(f"{prefix}.") or f"{path}.".startswith(f"{prefix}."):
                return f"loads code or data from elsewhere: {path}"
    return ""


def _audit_expression(text: str, modules: Mapping[str, str]) -> str:
    try:
        tree = parse_expression(text)
    except SyntaxError as error:
        return f"not a Python expression ({error.msg})"
    hidden = sorted(name for name in attributes(tree) if name.startswith("__"))
    if hidden:
        return f"reaches into Python itself: {', '.join(hidden)}"
    for root, *names in dotted_names(tree):
        if root in modules:
            if mark := _audit_path(".".join([modules[root], *names])):
                return mark
        elif hasattr(builtins, root) and root not in _HARMLESS:
            return f"outside: the built-in {root}"
    return ""


def _python_files(files: Iterable[str]) -> list[Item]:
    """List the bundle's Python files, which are importable because its folder is on the import path during a run."""
    folder = Path(next(iter(files))).resolve().parent
    root = folder.parent if folder.name == "configs" else folder
    python = [*root.glob("*.py"), *root.glob("scripts/**/*.py")] if folder.name == "configs" else []
    mark = "outside: an import in the config may load it"
    return [Item("python file", str(file.relative_to(root)), (str(root),), mark) for file in sorted(python)]
