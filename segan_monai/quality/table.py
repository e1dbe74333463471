# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""``signals.json``: the quality signals that an evaluation leaves beside ``metrics.csv``, and the cases of a fit."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from segan_monai.errors import ConfigError, DataError
from segan_monai.files import sha256_of
from segan_monai.json_files import read_json_object, write_json
from segan_monai.quality.estimate import FitCase
from segan_monai.quality.file import VERSION, require_settings

SIGNALS = "signals.json"
LEAST_CASES = 20
"""Fewest cases of a region for a fit: the lower bound is the second-lowest error of 20 [ours]."""
LEAST_PATIENTS = 10
"""Fewest patients of a region for a fit: each group of the cross-fit has one [ours]."""
FOLDS = 10


def write_signals(
    folder: Path,
    settings: Mapping[str, Any],
    cases: Mapping[str, Mapping[str, Any]],
    trained_on: Sequence[str] | None = (),
) -> None:
    """Write the signals of cases, with the SHA-256 of the ``metrics.csv`` that the evaluation wrote before.

    Args:
        folder: output folder of the evaluation.
        settings: settings of its inference, plain values.
        cases: ``patient``, ``image`` and ``regions`` of each case, see ``image_features`` and ``region_signals``.
        trained_on: those of the cases that the network was trained on; None if that is unknown.

    Raises:
        OutputError: The file cannot be written.
    """
    content = {
        "version": VERSION,
        "settings": dict(settings),
        "trained_on": None if trained_on is None else list(trained_on),
        "metrics_sha256": sha256_of(folder / "metrics.csv"),
        "cases": dict(sorted(cases.items())),
    }
    write_json(folder / SIGNALS, content, allow_nan=False, indent=None)


def read_evaluations(folders: Sequence[Path]) -> tuple[dict[str, Any], list[FitCase]]:
    """Read signals and Dice of out-of-fold cases.

    Cases of one patient, as the split of the training knows them, are in one of ten groups.

    Args:
        folders: output folders of evaluations with held-out cases, one per fold.

    Returns:
        The settings of all, and the cases.

    Raises:
        ConfigError: Settings differ, an evaluation is of an ensemble, a network was trained on a case or that is
            unknown, or a case occurs twice.
        DataError: A folder has no signals or metrics; or a region has a Dice in fewer cases than ``LEAST_CASES`` or
            patients than ``LEAST_PATIENTS``, or the same Dice in all.
    """
    settings: dict[str, Any] = {}
    found: dict[str, tuple[str, Mapping[str, Any], dict[str, float]]] = {}
    for folder in folders:
        content = _content(folder)
        if settings:
            name = str(folder / SIGNALS)
            require_settings(content["settings"], settings, name, "Evaluate all folds alike.", str(folders[0]))
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
    groups = _groups(found.values(), ", ".join(map(str, folders)))
    return settings, [
        FitCase(groups[patient], signals["image"], signals["regions"], dice, case)
        for case, (patient, signals, dice) in found.items()
    ]


def _groups(found: Collection[tuple[str, Mapping[str, Any], dict[str, float]]], folders: str) -> dict[str, int]:
    """Return the group of each patient, of the patient, signals and Dice of all cases.

    Raises:
        DataError: There are too few cases or patients, in all or of a region; or a region has one Dice in all.
    """
    if len(found) < LEAST_CASES:
        raise DataError(
            f"there are {len(found)} cases with signals and Dice in {folders}; expected at least {LEAST_CASES}."
        )
    labelled: dict[str, list[str]] = {patient: [] for patient, _, _ in found}
    for region in dict.fromkeys(region for _, signals, _ in found for region in signals["regions"]):
        scores = [(name, dice[region]) for name, _, dice in found if math.isfinite(dice.get(region, math.nan))]
        of_region = [patient for patient, _ in scores]
        patients = set(of_region)
        if len(of_region) < LEAST_CASES or len(patients) < LEAST_PATIENTS:
            raise DataError(
                f"region {region} has a Dice in {len(of_region)} cases of {len(patients)} patients in {folders}; "
                f"expected at least {LEAST_CASES} cases of {LEAST_PATIENTS} patients. Evaluate more held-out cases "
                "whose labels have this region."
            )
        if len({dice for _, dice in scores}) == 1:
            raise DataError(
                f"region {region} has a Dice of {scores[0][1]:g} in all {len(scores)} cases in {folders}, so nothing "
                "tells good results from bad ones; expected different values. Look at the pictures in report.html."
            )
        for patient in patients:
            labelled[patient].append(region)
    # patients with the same regions are dealt one after the other, so each region is in all groups
    return {name: index % FOLDS for index, name in enumerate(sorted(labelled, key=lambda name: (labelled[name], name)))}


def _content(folder: Path) -> dict[str, Any]:
    remedy = "Evaluate again: segan-monai evaluate TRAINING DATA, or segan-monai folds."
    for name in (SIGNALS, "metrics.csv"):
        if not (folder / name).is_file():
            raise DataError(f"{folder} has no {name}; expected the output folder of an evaluation. {remedy}")
    content = read_json_object(folder / SIGNALS, remedy)
    if content.get("version") != VERSION or not {"settings", "cases"} <= content.keys():
        raise DataError(f"{folder / SIGNALS} is of another version ({content.get('version')!r}). {remedy}")
    metrics = content.get("metrics_sha256")  # earlier versions did not record it
    if metrics is not None and metrics != sha256_of(folder / "metrics.csv"):
        raise DataError(
            f"{folder / 'metrics.csv'} has changed since {SIGNALS} was written beside it, such as by an evaluation of "
            f"other label maps; expected the file of the same evaluation. {remedy}"
        )
    if content["settings"].get("members", 1) != 1:
        raise ConfigError(
            f"{folder / SIGNALS} is of an ensemble of {content['settings']['members']} networks; expected one network, "
            "whose held-out cases are those of its fold. Evaluate each network by itself."
        )
    seen = content.get("trained_on")
    if seen is None:
        raise ConfigError(
            f"{folder / SIGNALS} has trained_on null: the evaluation found no split file, so its cases may have been "
            "trained on; expected a list. Evaluate again with --split_file, the split.json of the training."
        )
    if seen:
        raise ConfigError(
            f"the network was trained on {len(seen)} cases of {folder} or on their patients, such as {seen[0]}: their "
            "Dice is too high for a fit. Expected held-out cases alone: evaluate with --subset held_out."
        )
    return content
