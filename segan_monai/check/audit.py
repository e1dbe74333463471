# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What a config would run, listed without running any of it: for a person who decides whether to trust it."""

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
# parts of the trusted packages that load code or data from elsewhere
_REACHING_OUT = (
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
    """One thing that a config would run.

    Attributes:
        kind: ``import``, ``class`` or ``expression``; ``python file`` for one in the bundle that an import may load.
        text: as it stands in the config; of a short name of a class with its full path.
        places: ids at which it stands.
        mark: why a reader should look at it; empty if it stays within torch, monai, segan_monai and ignite.
    """

    kind: str
    text: str
    places: tuple[str, ...]
    mark: str


def audit_config(arguments: Mapping[str, Any]) -> list[Item]:
    """List every import, class and ``$`` expression of the configs and overrides of a command line.

    Nothing of the config is run, no module is imported for it, no file but the configs is read. The marks are a help
    for a reader and no sandbox: Python is too rich for that.

    Args:
        arguments: see `read_arguments`.

    Returns:
        What would be run: what is marked first, else in the order of the config.

    Raises:
        ConfigError: the configs cannot be read.
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
            entry = ("class", *_of_class(item))
        elif is_import(text):
            entry = ("import", text.removeprefix("$"), _of_path(_imported_path(text)))
        elif ConfigExpression.is_expression(text):
            entry = ("expression", text, _of_expression(text, modules))
        else:
            continue
        found.setdefault(entry, []).append(name.replace("::", "#"))
    listed = [Item(kind, text, tuple(places), mark) for (kind, text, mark), places in found.items()]
    return sorted(listed + _python_files(config_files(arguments)), key=lambda item: not item.mark)


def format_audit(items: Sequence[Item]) -> str:
    """A line an item, what is marked first, and the count."""
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


def _of_class(component: ConfigComponent) -> tuple[str, str]:
    target = component.get_config()["_target_"]
    if not isinstance(target, str):
        return repr(target), "no name of a class"
    if target.startswith("@"):
        return target, ""
    path = str(component.resolve_module_name())
    return (target if path == target else f"{target} = {path}"), _of_path(path)


def _of_path(path: str) -> str:
    """Why a dotted path is worth a look; only packages that this process has loaded anyway are followed."""
    top = path.split(".")[0]
    if top not in TRUSTED and not (top == "numpy" and path == "numpy"):
        return f"outside: {top} is none of the trusted packages"
    if top not in sys.modules:
        return ""
    reached, absent = follow(importlib.import_module(top), path.split(".")[1:])
    if absent:
        return f"{top} has no {path.removeprefix(top + '.')}"
    return _of_object(reached, path)


def _of_object(reached: Any, path: str) -> str:
    owner = reached.__name__ if isinstance(reached, ModuleType) else str(getattr(reached, "__module__", None) or "")
    full = owner if isinstance(reached, ModuleType) else f"{owner}.{getattr(reached, '__name__', '')}"
    if isinstance(reached, ModuleType) or callable(reached):
        if owner and owner.split(".")[0] not in (*TRUSTED, "numpy"):
            # torch.os.system is os.system
            return f"outside: {path} is {full}"
        for prefix in _REACHING_OUT:
            if f"{full}.".startswith(f"{prefix}.") or f"{path}.".startswith(f"{prefix}."):
                return f"loads code or data from elsewhere: {path}"
    return ""


def _of_expression(text: str, modules: Mapping[str, str]) -> str:
    try:
        tree = parse_expression(text)
    except SyntaxError as error:
        return f"no Python expression ({error.msg})"
    hidden = sorted(name for name in attributes(tree) if name.startswith("__"))
    if hidden:
        return f"reaches into Python itself: {', '.join(hidden)}"
    for root, *names in dotted_names(tree):
        if root in modules:
            if mark := _of_path(".".join([modules[root], *names])):
                return mark
        elif hasattr(builtins, root) and root not in _HARMLESS:
            return f"outside: the built-in {root}"
    return ""


def _python_files(files: Iterable[str]) -> list[Item]:
    """Python files of the bundle: its folder joins the search path of imports when it is run."""
    folder = Path(next(iter(files))).resolve().parent
    root = folder.parent if folder.name == "configs" else folder
    python = [*root.glob("*.py"), *root.glob("scripts/**/*.py")] if folder.name == "configs" else []
    mark = "outside: an import of the config may load it"
    return [Item("python file", str(file.relative_to(root)), (str(root),), mark) for file in sorted(python)]
