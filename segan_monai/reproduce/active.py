# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Simulated active learning: which cases get a label next, by the quality that the current network expects of them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from segan_monai.data import read_split
from segan_monai.errors import ConfigError, DataError
from segan_monai.json_files import read_json_object
from segan_monai.quality import quality_without_fit
from segan_monai.quality.table import SIGNALS
from segan_monai.reproduce.published import Labels
from segan_monai.reproduce.results import REPEAT

POOL = "pool"
"""Folder of the evaluation of the cases that have no label yet."""


def stage_before(labels: Labels, number: int) -> int | None:
    """Return the number of labels before this one, whose network chooses what to label; None for the first draw."""
    smaller = [other for other in labels.numbers if other < number]
    return max(smaller, default=None)


def choose_cases(training: Path, pool: Path, number: int, always: Container[str] = ()) -> list[str]:
    """Return the cases that have a label in the next stage: those of this stage, and the worst of the others.

    Args:
        training: training of this stage, whose ``split.json`` names its labelled cases.
        pool: its evaluation of the cases without a label, without use of their labels.
        number: number of labels in the next stage.
        always: regions that every case should have, see ``quality_without_fit``.

    Returns:
        ``number`` names, sorted.

    Raises:
        DataError: The evaluation has no signals.
        ConfigError: There are fewer cases than ``number``.
    """
    labelled = read_split(training / "split.json", REPEAT)["training"]
    file = pool / SIGNALS
    if not file.is_file():
        raise DataError(
            f"{pool} has no {SIGNALS}, so its bundle gives no signals of quality. Choose another bundle for this table."
        )
    signals = read_json_object(file, REPEAT)["cases"]
    others = {name: found["regions"] for name, found in signals.items() if name not in labelled}
    if len(labelled) + len(others) < number:
        raise ConfigError(
            f"{number} labelled cases, but the training set has {len(labelled) + len(others)}. Use smaller --labels."
        )
    return sorted([*labelled, *lowest(others, number - len(labelled), always)])


def lowest(cases: Mapping[str, Mapping[str, Mapping[str, Any]]], count: int, always: Container[str] = ()) -> list[str]:
    """Return the names of the cases with the lowest expected quality, see ``quality_without_fit``; ties by name.

    Args:
        cases: signals by region of each case.
        count: number of names.
        always: regions that every case should have.
    """
    return sorted(cases, key=lambda name: (quality_without_fit(cases[name], always), name))[:count]
