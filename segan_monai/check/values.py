# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Type and range checks for the values of config keys."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigExpression, ConfigParser, ReferenceResolver

from segan_monai.check.key_rules import broken_rules, doubtful_values
from segan_monai.check.keys import KEYS
from segan_monai.check.report import Report, counted
from segan_monai.check.trial import check_device
from segan_monai.errors import ConfigError


def check_values(parser: ConfigParser, report: Report) -> None:
    """Check that each known key has a value of its kind, and that the values are consistent.

    Expressions are evaluated, but no component is built; keys whose expressions need one are skipped. Keys that are not
    in ``KEYS`` belong to the user and are not checked.

    Args:
        parser: the parsed config.
        report: receives the row ``values``.
    """
    config: Mapping[str, Any] = parser.get()
    keys = [name for name in KEYS if name in config and not _has_component(config[name])]
    report.note("values", f"{len(keys)} keys have valid values")
    values: dict[str, Any] = {}
    for name in (name for name in keys if not _is_derived(config[name])):
        _check_value(name, config[name], values, report)
    if not report.of_rule("values"):  # values derived from a wrong value would be reported too
        plain = {name: value for name, value in config.items() if name != "_meta_" and not _has_component(value)}
        evaluated = ConfigParser(plain)
        for name in (name for name in keys if name not in values):
            try:
                value = evaluated.get_parsed_content(name)
            except Exception:  # an expression may raise anything; the run reports it
                continue
            _check_value(name, value, values, report)
    for problem in broken_rules(values, config):
        report.error("values", "several keys", problem)
    for doubt in doubtful_values(values):
        report.warning("values", "several keys", doubt)


def refuse_wrong_values(parser: ConfigParser) -> list[str]:
    """Check all values and the device before a run writes anything.

    Returns:
        Warnings, for the log of the run.

    Raises:
        ConfigError: The first wrong value and the number of others.
    """
    report = Report()
    check_values(parser, report)
    if not report.errors:
        check_device(parser, report)
    if report.errors:
        first, *others = report.errors
        more = f" And {counted(len(others), 'more wrong value')}: segan-monai check lists all." if others else ""
        raise ConfigError(f"{first.message}{more}")
    return [warning.message for warning in report.of_rule("values")]


def _check_value(name: str, value: Any, values: dict[str, Any], report: Report) -> None:
    kind, purpose = KEYS[name]
    if kind.takes(value):
        values[name] = value
    else:
        report.error("values", name, f"--{name} {shown(value)}: expected {kind.expected} ({name}: {purpose}).")


def shown(value: Any) -> str:
    """Format a value as in a command or config: ``true``, ``null``; text is quoted only if it looks like a literal."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if not isinstance(value, str):
        return repr(value)
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value or "''"
    return repr(value)


def _has_component(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_component, value.values()))
    return isinstance(value, list) and any(map(_has_component, value))


def _is_derived(value: Any) -> bool:
    """Return whether a value, or a part of it, is an expression or refers to other keys."""
    if isinstance(value, Mapping):
        return any(map(_is_derived, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_is_derived, value))
    return ConfigExpression.is_expression(value) or bool(ReferenceResolver.match_refs_pattern(str(value)))
