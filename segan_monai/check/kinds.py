# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Kinds of values of config keys. Each tests a value and describes what it expects."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from monai.networks.layers import Norm

from segan_monai.errors import ConfigError
from segan_monai.parts import parse_part


@dataclass(frozen=True)
class Kind:
    """Kind of value; ``a | b`` accepts the values of both.

    Attributes:
        expected: description of the values accepted, such as ``a whole number of at least 1``.
        takes: function that returns whether a value, of any type, is of this kind.
    """

    expected: str
    takes: Callable[[Any], bool]

    def __or__(self, other: Kind) -> Kind:
        return Kind(f"{self.expected} or {other.expected}", lambda value: self.takes(value) or other.takes(value))


def whole(minimum: int, maximum: int | None = None) -> Kind:
    """Return the kind of integers from ``minimum`` to ``maximum``. ``true`` and ``2.0`` are not integers."""
    limit = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def takes(value: Any) -> bool:
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        return is_whole and minimum <= value and (maximum is None or value <= maximum)

    return Kind(f"a whole number {limit}", takes)


def number(
    minimum: float = -math.inf, maximum: float = math.inf, *, above: float = -math.inf, below: float = math.inf
) -> Kind:
    """Return the kind of finite numbers in a range; ``minimum`` and ``maximum`` are inclusive, the others exclusive."""
    limits = [
        f"{words} {limit:g}"
        for words, limit in (("of at least", minimum), ("above", above), ("of at most", maximum), ("below", below))
        if math.isfinite(limit)
    ]

    def takes(value: Any) -> bool:
        is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        return is_number and minimum <= value <= maximum and above < value < below

    return Kind(" ".join(["a finite number", " and ".join(limits)]).strip(), takes)


def choice(*options: Any) -> Kind:
    """Return the kind of values that equal one of the options, which are texts or integers."""
    *others, last = (f"'{option}'" if isinstance(option, str) else str(option) for option in options)
    expected = f"{', '.join(others)} or {last}" if others else last
    return Kind(expected, lambda value: any(type(value) is type(option) and value == option for option in options))


def list_of(item: Kind, length: int | None = None) -> Kind:
    """Return the kind of lists with one or more items of a kind, or exactly ``length`` items."""
    how_many = "one or more, each" if length is None else f"{length}, each"

    def takes(value: Any) -> bool:
        fits = isinstance(value, list | tuple) and (len(value) == length if length is not None else len(value) > 0)
        return fits and all(map(item.takes, value))

    return Kind(f"a list of {how_many} {item.expected}", takes)


def distinct(kind: Kind) -> Kind:
    """Return the kind of lists of another kind that have no repeated items."""
    return Kind(f"{kind.expected}, all different", lambda value: kind.takes(value) and len(set(value)) == len(value))


def mapping_to(item: Kind) -> Kind:
    """Return the kind of mappings of names to values of a kind."""

    def takes(value: Any) -> bool:
        return isinstance(value, Mapping) and bool(value) and all(map(item.takes, value.values()))

    return Kind(f"a mapping of one or more names, each to {item.expected}", takes)


def _is_interval(value: Any) -> bool:
    return _PAIR.takes(value) and value[0] < value[1]


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and re.compile(value).groups >= 1
    except re.error:
        return False


def _is_part(value: Any) -> bool:
    try:
        return isinstance(value, str) and parse_part(value) is not None
    except ConfigError:
        return False


def _is_norm(value: Any) -> bool:
    if not isinstance(value, list | tuple):
        return _NORMS.takes(value)
    name = str(value[0]).upper() if value else None
    return name in Norm.names and name != "SYNCBATCH"


_PAIR = list_of(number(), 2)
_NORMS = choice("batch", "instance", "layer", "localresponse")
NORM = Kind(
    f"{_NORMS.expected}, or a list such as ['group', {{'num_groups': 4}}]; for several GPUs 'batch' and "
    "sync_batch_norm true",
    _is_norm,
)
INTERVAL = Kind("a list of 2 numbers, the lower one first", _is_interval)
PATTERN = Kind("a regular expression with a group, such as '(.+)-[0-9]+'", _is_pattern)
PART = Kind("a part such as 2/4", _is_part)
EMPTY = Kind("an empty list", lambda value: isinstance(value, list | tuple) and not value)
NULL = Kind("null", lambda value: value is None)
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("text", lambda value: isinstance(value, str) and bool(value.strip()))
PATH = Kind("a path", lambda value: isinstance(value, str | os.PathLike) and bool(str(value).strip()))
MAPPING = Kind("a mapping of names to values", lambda value: isinstance(value, Mapping))
LIST = Kind("a list", lambda value: isinstance(value, list | tuple))
FUNCTION = Kind("a Python function", callable)
DEVICE = Kind("a device, such as cpu or cuda:0", lambda value: isinstance(value, torch.device) or TEXT.takes(value))
