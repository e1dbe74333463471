# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""``signals.json``: the quality signals that an evaluation leaves beside ``metrics.csv``, and the cases of a fit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from segan_monai.errors import ConfigError, DataError
from segan_monai.files import whole_file
from segan_monai.json_files import read_json_object
from segan_monai.quality.estimate import FitCase
from segan_monai.quality.file import VERSION, require_settings

SIGNALS = "signals.json"
LEAST_CASES = 20
"""Fewest cases of a region for a fit: the lower bound is the second-lowest error of 20 [ours]."""
LARGEST_FOLDS = 10


def write_signals(
    folder: Path, settings: Mapping[str, Any], cases: Mapping[str, Mapping[str, Any]], trained_on: Sequence[str] = ()
) -> None:
    """Write the signals of cases.

    Args:
        folder: output folder of the evaluation.
        settings: settings of its inference, plain values.
        cases: ``patient``, ``image`` and ``regions`` of each case, see ``image_features`` and ``region_signals``.
        trained_on: those of the cases that the network was trained on.

    Raises:
        OutputError: The file cannot be written.
    """
    content = {
        "version": VERSION,
        "settings": dict(settings),
        "trained_on": list(trained_on),
        "cases": dict(sorted(cases.items())),
    }
    with whole_file(folder / SIGNALS) as file:
        file.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_evaluations(folders: Sequence[Path]) -> tuple[dict[str, Any], list[FitCase]]:
    """Read signals and Dice of out-of-fold cases.

    Cases of one patient, as the split of the training knows them, are in one group; there are at most ten groups.

    Args:
        folders: output folders of evaluations with held-out cases, one per fold.

    Returns:
        The settings of all, and the cases.

    Raises:
        ConfigError: Settings differ, a network was trained on a case, or a case occurs twice.
        DataError: A folder has no signals or metrics, or there are fewer than ``LEAST_CASES``.
    """
    settings: dict[str, Any] = {}
    found: dict[str, tuple[str, Mapping[str, Any], dict[str, float]]] = {}
    for folder in folders:
        content = _content(folder)
        if settings:
            require_settings(content["settings"], settings, str(folder / SIGNALS), "Evaluate all folds alike.")
        settings = content["settings"]
        metrics = pd.read_csv(folder / "metrics.csv", dtype={"case": str, "region": str}, keep_default_na=False)
        metrics["dice"] = pd.to_numeric(metrics["dice"], errors="coerce")
        for case, rows in metrics.groupby("case", sort=False):
            if case in found:
                raise ConfigError(f"case {case} is in two evaluations, such as {folder}; expected one per fold.")
            if case in content["cases"]:
                dice = dict(zip(rows["region"], rows["dice"].astype(float), strict=True))
                signals = content["cases"][case]
                found[str(case)] = str(signals["patient"]), signals, dice
    if len(found) < LEAST_CASES:
        raise DataError(f"there are {len(found)} cases with signals and Dice; expected at least {LEAST_CASES}.")
    patients = sorted({patient for patient, _, _ in found.values()})
    groups = {patient: index % min(LARGEST_FOLDS, len(patients)) for index, patient in enumerate(patients)}
    return settings, [
        FitCase(groups[patient], signals["image"], signals["regions"], dice)
        for patient, signals, dice in found.values()
    ]


def _content(folder: Path) -> dict[str, Any]:
    remedy = "Evaluate again: segan-monai evaluate TRAINING DATA, or segan-monai folds."
    for name in (SIGNALS, "metrics.csv"):
        if not (folder / name).is_file():
            raise DataError(f"{folder} has no {name}; expected the output folder of an evaluation. {remedy}")
    content = read_json_object(folder / SIGNALS, remedy)
    if content.get("version") != VERSION or not {"settings", "cases"} <= content.keys():
        raise DataError(f"{folder / SIGNALS} is of another version ({content.get('version')!r}). {remedy}")
    if seen := content.get("trained_on"):
        raise ConfigError(
            f"the network was trained on {len(seen)} cases of {folder}, such as {seen[0]}, whose Dice is too high for "
            "a fit. Expected held-out cases alone: evaluate with --subset held_out."
        )
    return content
