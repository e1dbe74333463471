# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Deferred writes: a run in the folder of an earlier run changes nothing there until its training begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_first: dict[Path, Callable[[], None]] = {}
_writes: dict[Path, list[Callable[[], None]]] = {}


def defer_writes(folder: Path, first: Callable[[], None]) -> None:
    """Keep all further writes into a folder until ``training_begins``.

    Args:
        folder: output folder of the run.
        first: called before the writes, such as to move the files of the earlier run. If a folder is deferred twice,
            because a start failed or federated learning starts a run twice, only the last one is called.
    """
    _first[folder.resolve()] = first
    _writes.setdefault(folder.resolve(), [])


def are_deferred(folder: Path) -> bool:
    """Return whether writes into a folder wait until training begins."""
    return folder.resolve() in _first


def write_in_time(folder: Path, write: Callable[[], None]) -> None:
    """Call ``write``, which writes a file into the folder: at once, or when training begins if writes are deferred."""
    if are_deferred(folder):
        _writes[folder.resolve()].append(write)
    else:
        write()


def training_begins(folder: Path) -> None:
    """Perform the deferred writes of a folder, in their order. Without any, do nothing."""
    first = _first.pop(folder.resolve(), None)
    writes = _writes.pop(folder.resolve(), [])
    if first is not None:
        first()
    for write in writes:
        write()
