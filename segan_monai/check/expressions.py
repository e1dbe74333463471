# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Static analysis of ``$`` expressions in configs. Expressions are parsed, never run."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from monai.bundle import ConfigExpression, ReferenceResolver

REFERENCE = "_reference_"


def is_import(text: Any) -> bool:
    """Return whether a config value is an import statement, such as ``$import torch``."""
    if not ConfigExpression.is_expression(text):
        return False
    try:
        (statement,) = ast.parse(text.removeprefix("$").strip()).body
    except (SyntaxError, ValueError):
        return False
    return isinstance(statement, ast.Import | ast.ImportFrom)


def imported(text: str) -> tuple[str, str, str]:
    """Parse an import statement, of which only the first name is used, as in MONAI.

    Returns:
        Module, name in the module (empty if the module itself is imported) and name in the config.
    """
    (statement,) = ast.parse(text.removeprefix("$").strip()).body
    assert isinstance(statement, ast.Import | ast.ImportFrom)
    alias = statement.names[0]
    if isinstance(statement, ast.ImportFrom):
        return statement.module or "", alias.name, alias.asname or alias.name
    return alias.name, "", alias.asname or alias.name


def parse_expression(text: str) -> ast.Expression:
    """Parse a ``$`` expression, with a placeholder name for each ``@reference``.

    Raises:
        SyntaxError: The text is not a Python expression.
    """
    code = ReferenceResolver.normalize_id(text.removeprefix("$")).strip()
    return ast.parse(ReferenceResolver.id_matcher.sub(REFERENCE, code), mode="eval")


def bound_names(tree: ast.AST) -> set[str]:
    """Return the names that an expression binds: targets of comprehensions and arguments of lambdas."""
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def dotted_names(tree: ast.AST) -> Iterator[list[str]]:
    """Iterate over the names in an expression, each with its attributes: ``["torch", "cuda", "device"]``."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if id(node) in inner:
            continue
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id != REFERENCE:
            yield [node.id, *names]


def names_any_of(text: Any, names: Collection[str]) -> bool:
    """Return whether a config value is an expression that uses one of the names, alone or as an attribute."""
    if not ConfigExpression.is_expression(text):
        return False
    try:
        found = list(dotted_names(parse_expression(text)))
    except SyntaxError:
        return False
    return any(part in names for dotted in found for part in dotted)


def attributes(tree: ast.AST) -> set[str]:
    """Return the names of all attributes that an expression accesses."""
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def follow(module: ModuleType, names: list[str]) -> tuple[Any, str | None]:
    """Follow attributes from a module as long as they are modules or classes.

    Returns:
        The last object reached, and the first missing name, or None.
    """
    found: Any = module
    for name in names:
        if not isinstance(found, ModuleType | type):
            break  # attributes of other objects may be created at run time
        if not hasattr(found, name):
            is_module = isinstance(found, ModuleType) and hasattr(found, "__path__")
            not_yet_loaded = is_module and find_spec(f"{found.__name__}.{name}") is not None
            return found, None if not_yet_loaded else name
        found = getattr(found, name)
    return found, None
