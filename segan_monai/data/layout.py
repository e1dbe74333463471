# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Description of a folder layout: how to recognize it, find its cases and name its label maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Layout:
    """A folder layout of data sets.

    Attributes:
        name: Name in log lines.
        data_set: Name of the data set in messages and in ``dataset.json``.
        expected: Files of the layout, for messages.
        matches: Returns whether a folder, given the modalities, is in this layout. It does not read images.
        cases: Returns the cases of a folder that matches, given the modalities and ``keep_incomplete``, in the form
            that ``find_cases`` describes.
        names_cases: Whether the files may name the cases. Such names are checked; names of files are made safe.
        label_maps: Selects the label maps among the volumes below a folder and returns the case of each, so that an
            evaluation finds them by their names alone. None if the names do not tell.
    """

    name: str
    data_set: str
    expected: str
    matches: Callable[[Path, Sequence[str] | None], bool]
    cases: Callable[[Path, Sequence[str] | None, bool], list[dict[str, Any]]]
    names_cases: bool = False
    label_maps: Callable[[Sequence[Path], Path], dict[Path, str]] | None = None
