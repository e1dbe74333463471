# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Training and out-of-fold evaluation of one fold of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segan_monai.errors import DataError
from segan_monai.json_files import read_json_object
from segan_monai.reproduce import Plan
from segan_monai.reproduce.runs import evaluate_row, train_row

REPEAT = "Delete its folder: the same command then runs it again."


@dataclass(frozen=True)
class FoldRun:
    """Results of one fold.

    Attributes:
        row: name of the configuration.
        seed: seed of split and initialization.
        fold: number of the held-out fold.
        training: folder with ``model.pt`` and ``split.json``; None for an ensemble of configurations.
        evaluation: folder with ``metrics.csv`` and ``summary.json`` of the held-out fold.
    """

    row: str
    seed: int
    fold: int
    training: Path | None
    evaluation: Path


def run_fold(plan: Plan, row: str, seed: int, fold: int) -> FoldRun:
    """Train a configuration without one fold and evaluate it on that fold, unless the results exist.

    Only the fold is evaluated, not a section ``test`` of the data set. Rules of post-processing are not applied,
    because those of an earlier choice were chosen on the same cases.

    Args:
        plan: the settings shared by all rows.
        row: name of the configuration.
        seed: seed of split and initialization.
        fold: number of the fold to hold out.

    Raises:
        RunFailedError: the training or the evaluation failed.
        ConfigError: the folder of this run holds one with other settings.
        DataError: the data set names its own validation cases, so there are no folds.
    """
    folder, settings = train_row(plan, row, seed, fold)
    training, evaluation = folder / "training", folder / "out_of_fold"
    split = read_json_object(training / "split.json", REPEAT)
    if split.get("fold") is None:
        raise DataError(
            f"{plan.dataset_dir} names its own validation cases, which are held out whatever the fold is "
            f"({training / 'split.json'}), so it cannot be cross-validated. Use a datalist without a section "
            "'validation', or train once with segan-monai train."
        )
    if not (evaluation / "summary.json").is_file():
        evaluate_row(plan, row, training, evaluation, {**settings, **_evaluation_keys(plan)})
    return FoldRun(row, seed, fold, training, evaluation)


def _evaluation_keys(plan: Plan) -> dict[str, Any]:
    """Return the keys of an out-of-fold evaluation that the bundle has."""
    known = read_json_object(Path(plan.table.bundle) / "configs" / "evaluate.json")
    return {key: value for key, value in {"subset": "validation", "region_rules": None}.items() if key in known}
