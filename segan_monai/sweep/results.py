# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Results of a sweep, read from the folders of its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segan_monai.errors import DataError
from segan_monai.files import whole_file
from segan_monai.json_files import read_json_object, write_json
from segan_monai.report.history import read_history

TRIAL = "trial.json"
STATES = ("finished", "stopped early", "unfinished", "failed")


@dataclass(frozen=True)
class SweepTrial:
    """One training of a sweep.

    Attributes:
        name: name of its folder.
        drawn: drawn values by key, in the form of Optuna.
        settings: the same as values of config keys.
        state: one of ``STATES``; the last: the training ended with an error of its own.
        value: best value of the metric so far; None before the first validation.
        best_epoch: epoch of that value.
        epochs: epochs trained.
        seconds: training time without validation.
        started: time of the first start, ISO 8601 in UTC; empty in sweeps of earlier versions.
        failure: message of a training that failed; else empty.
    """

    name: str
    drawn: Mapping[str, Any]
    settings: Mapping[str, Any]
    state: str
    value: float | None
    best_epoch: int | None
    epochs: int
    seconds: float
    started: str = ""
    failure: str = ""


def validations(training: Path, metric: str) -> pd.Series:
    """Return the finite values of a metric by epoch; empty before the first validation.

    Args:
        training: output folder of the training.
        metric: name in ``history.csv``, such as ``validation/mean_dice``.
    """
    file = training / "history.csv"
    if not file.is_file():
        return pd.Series(dtype=float)
    history = read_history(file)
    of_metric = history[history["name"] == metric].dropna()
    return of_metric.groupby("epoch")["value"].last().astype(float)


def read_trials(output_dir: Path, metric: str, epochs: int, largest: bool = True) -> list[SweepTrial]:
    """Read all trials of a sweep, the best first, then those that failed, and those without a value.

    Args:
        output_dir: folder of the sweep.
        metric: name in ``history.csv``.
        epochs: epochs of a training that is not stopped early.
        largest: whether larger values are better.

    Raises:
        DataError: The record of a trial is damaged.
    """
    trials = []
    for file in sorted((output_dir / "trials").glob(f"*/{TRIAL}")):
        record = read_json_object(file, "Delete the folder of this trial.")
        training = file.parent / "training"
        values = validations(training, metric)
        history = training / "history.csv"
        seconds = (
            read_history(history).groupby("epoch")["seconds"].max() if history.is_file() else pd.Series(dtype=float)
        )
        trained = int(seconds.index.max()) if len(seconds) else 0
        best = (values.idxmax() if largest else values.idxmin()) if len(values) else None
        trials.append(
            SweepTrial(
                file.parent.name,
                record["drawn"],
                record["settings"],
                _state(record, trained >= epochs),
                None if best is None else float(values[best]),
                None if best is None else int(best),
                trained,
                float(seconds.sum()),
                str(record.get("started", "")),
                str(record.get("failed", "")),
            )
        )
    sign = -1 if largest else 1

    def order(trial: SweepTrial) -> tuple[bool, bool, float, str]:
        return trial.value is None, trial.state == "failed", sign * (trial.value or 0.0), trial.name

    return sorted(trials, key=order)


def _state(record: Mapping[str, Any], complete: bool) -> str:
    if "failed" in record:
        return "failed"
    if not record.get("ended"):
        return "unfinished"
    return "finished" if complete else "stopped early"


def write_results(output_dir: Path, trials: Sequence[SweepTrial], metric: str) -> list[Path]:
    """Write ``sweep.csv``, one line per trial, and ``best.json``, the settings of the best one as an overlay.

    Raises:
        DataError: No trial has a value.
        OutputError: A file cannot be written.
    """
    if not trials or trials[0].value is None:
        failure = next((f" {trial.failure}" for trial in trials if trial.failure), "")
        raise DataError(
            f"no trial of {output_dir} has a value of {metric}.{failure} See the files training.log in its folder "
            "trials; the names of metrics are those of history.csv. Failed trials are not repeated: correct the cause "
            "and choose another --output-dir."
        )
    lines = [
        {
            "trial": trial.name,
            metric: trial.value,
            "best_epoch": trial.best_epoch,
            "epochs": trial.epochs,
            "state": trial.state,
            "started": trial.started,
            "train_seconds": trial.seconds,
            **{
                key: json.dumps(value) if isinstance(value, list | dict) else value
                for key, value in trial.settings.items()
            },
        }
        for trial in trials
    ]
    with whole_file(output_dir / "sweep.csv") as file:
        pd.DataFrame(lines).to_csv(file, index=False, float_format="%.6g")
    write_json(output_dir / "best.json", trials[0].settings)
    return [output_dir / "sweep.csv", output_dir / "best.json"]
