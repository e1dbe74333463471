# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Training and out-of-fold evaluation of one fold of a configuration."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from segan_monai.errors import DataError
from segan_monai.json_files import read_json_object
from segan_monai.metrics.summary import read_metrics
from segan_monai.reproduce import Plan
from segan_monai.reproduce.results import REPEAT, is_evaluated
from segan_monai.reproduce.runs import evaluate_row, train_row


@dataclass(frozen=True)
class FoldRun:
    """Results of one fold.

    Attributes:
        row: name of the configuration.
        seed: seed of split and initialization.
        fold: number of the held-out fold.
        training: folder with ``model.pt`` and ``split.json``; that of the first member for an ensemble.
        evaluation: folder with ``metrics.csv`` and ``summary.json`` of the held-out fold.
        members: runs of the configurations of an ensemble; empty for a configuration.
    """

    row: str
    seed: int
    fold: int
    training: Path
    evaluation: Path
    members: tuple[FoldRun, ...] = ()


def run_fold(plan: Plan, row: str, seed: int, fold: int, save_maps: bool = False) -> FoldRun:
    """Train a configuration without one fold and evaluate it on that fold, unless the results of all cases exist.

    Only the fold is evaluated, not a section ``test`` of the data set. Rules of post-processing are not applied,
    because those of an earlier choice were chosen on the same cases.

    Args:
        plan: the settings shared by all rows.
        row: name of the configuration.
        seed: seed of split and initialization.
        fold: number of the fold to hold out.
        save_maps: save the probability maps of the held-out cases too, if the bundle can.

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
    maps = save_maps and can_save_maps(plan)
    if not is_evaluated(evaluation) or (maps and _lacks_maps(evaluation)):
        keys = {"subset": "validation", "region_rules": None, **({"save_probabilities": True} if maps else {})}
        known = evaluation_keys(plan)
        own = {key: value for key, value in keys.items() if key in known}
        evaluate_row(plan, row, training, evaluation, {**settings, **own})
    return FoldRun(row, seed, fold, training, evaluation)


def evaluation_keys(plan: Plan) -> Collection[str]:
    """Return the keys of the bundle's ``evaluate.json``."""
    return read_json_object(Path(plan.table.bundle) / "configs" / "evaluate.json").keys()


def can_save_maps(plan: Plan) -> bool:
    """Return whether evaluations of the bundle can save probability maps."""
    return "save_probabilities" in evaluation_keys(plan)


def skipped_steps(plan: Plan, ensembles: bool, region_rules: bool) -> list[str]:
    """Return a sentence for each step that was asked for, but that the bundle has no keys for.

    Args:
        plan: the settings shared by all rows.
        ensembles: whether ensembles of several configurations were asked for.
        region_rules: whether a choice of the post-processing was asked for.
    """
    needed = {"Ensembles were not scored": ["save_probabilities"]} if ensembles else {}
    if region_rules:
        needed["No post-processing was chosen"] = ["save_probabilities", "region_rules"]
    known, name = evaluation_keys(plan), Path(plan.table.bundle).name
    missing = {step: [key for key in keys if key not in known] for step, keys in needed.items()}
    return [f"{step}: {name} has no key {' and no key '.join(keys)}." for step, keys in missing.items() if keys]


def _lacks_maps(evaluation: Path) -> bool:
    cases = read_metrics(evaluation)["case"].unique()
    return not all(map_file(evaluation, case).is_file() for case in cases)


def map_file(evaluation: Path, case: str) -> Path:
    """Return the file of a case's probability maps."""
    return evaluation / f"{case}_probabilities.nii.gz"
