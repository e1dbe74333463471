# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Finished folds as files, as a training and its evaluation write them."""

from __future__ import annotations

import json

import pandas as pd

from segan_monai.folds import FoldRun

SPLITS = {0: ["a", "b"], 1: ["c", "d"]}
"""Held-out cases of each fold."""


def write_fold(folder, row, fold, dice, *, seed=0, hd95=1.0, training=None, not_evaluated=None, subjects=None):
    """Write one fold of a configuration whose cases have the given Dice by region, and return it.

    Args:
        folder: receives the fold.
        row: name of the configuration.
        fold: number of the fold.
        dice: case to Dice by region.
        seed: seed of the run.
        hd95: HD95 of all cases.
        training: names of the training cases; by default those of the other fold.
        not_evaluated: case to reason.
        subjects: case to patient.
    """
    run = FoldRun(
        row, seed, fold, folder / row / f"{seed}_{fold}" / "training", folder / row / f"{seed}_{fold}" / "oof"
    )
    run.training.mkdir(parents=True)
    run.evaluation.mkdir()
    split = {
        "fold": fold,
        "training": training or [case for other, cases in SPLITS.items() if other != fold for case in cases],
        "validation": SPLITS[fold],
        "subjects": subjects or {},
    }
    (run.training / "split.json").write_text(json.dumps(split), encoding="utf-8")
    rows = [
        {"case": case, "region": region, "dice": value, "hd95_mm": hd95}
        for case, of_case in dice.items()
        for region, value in of_case.items()
    ]
    pd.DataFrame(rows).to_csv(run.evaluation / "metrics.csv", index=False)
    summary = {"regions": {}, **({"not_evaluated": not_evaluated} if not_evaluated else {})}
    (run.evaluation / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return run


def one_region(**dice):
    """Dice of cases in the only region."""
    return {case: {"tumour": value} for case, value in dice.items()}
