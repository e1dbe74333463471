# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads the results of a run: cost of its training, and metrics of its evaluation."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from segan_monai.data import read_split
from segan_monai.data.split_file import counts_of_parts
from segan_monai.json_files import read_json_object
from segan_monai.metrics.summary import read_metrics
from segan_monai.reproduce.domains import read_accuracy, read_domains

REPEAT = "Delete its folder: the same command then runs it again."


def is_evaluated(folder: Path) -> bool:
    """Return whether an evaluation has evaluated all of its cases: ``summary.json`` names none as not evaluated.

    Args:
        folder: output folder of the evaluation.

    Raises:
        DataError: ``summary.json`` is damaged.
    """
    file = folder / "summary.json"
    return file.is_file() and not read_json_object(file, REPEAT).get("not_evaluated")


def read_training(folder: Path) -> dict[str, Any]:
    """Read epochs, seconds, peak memory and numbers of parameters from a run's ``history.csv``.

    Of a network with RoIs also ``box_iou``, the mean IoU of drawn and true boxes in the last epoch of training; with a
    discriminator, see ``read_accuracy``.
    """
    history = pd.read_csv(folder / "history.csv")
    values = history.groupby("name")["value"].max()
    ious = history.loc[history["name"] == "training/box_iou", "value"].dropna()
    prefix = "parameters_"
    return {
        "epochs": int(history["epoch"].max()),
        "train_seconds": float(history.groupby("epoch")["seconds"].max().sum()),
        "peak_memory_mib": float(values["peak_memory_mib"]),
        **({"box_iou": float(ious.iloc[-1])} if len(ious) else {}),
        **read_accuracy(history),
        "parameters": {str(k).removeprefix(prefix): int(v) for k, v in values.items() if str(k).startswith(prefix)},
    }


def read_evaluation(training: Path, evaluation: Path, domains: Collection[str] | None = None) -> dict[str, Any]:
    """Read the results of an evaluation, and from the training's ``split.json`` its cases and those of each patient.

    Args:
        training: output folder of the training.
        evaluation: output folder of the evaluation.
        domains: the domains that it trained on; None for all.
    """
    split = read_split(training / "split.json", REPEAT)
    trained_on = counts_of_parts(split, domains)
    summary = read_json_object(evaluation / "summary.json", REPEAT)
    cost = {key: summary[key] for key in ("gflop_per_slice",) if key in summary}
    metrics = read_metrics(evaluation)
    return {
        "training_cases": trained_on["training"],
        "unlabeled_cases": trained_on["unlabeled"],
        "regions": summary["regions"],
        "patient_of_cases": split["subjects"],
        "dice_of_cases": metrics.groupby("case")["dice"].mean().to_dict(),
        **cost,
        **read_domains(evaluation, metrics, REPEAT),
    }
