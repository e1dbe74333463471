# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Paired comparison of the rows of a table with a baseline row, patient by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 10_000
CONFIDENCE = 0.95


def paired_differences(runs: Sequence[Mapping[str, Any]], baseline: str) -> pd.DataFrame:
    """Compare the Dice of every row with that of the baseline on the same patients.

    Only runs of the same seed and fold are compared. A patient's Dice is the mean over the regions; the difference of
    a patient is the mean over all such runs in which the patient was held out. Patients are then the units: the
    confidence interval is the percentile bootstrap over patients, and the P value is that of the two-sided Wilcoxon
    signed-rank test, corrected for the number of rows (Benjamini and Hochberg, 1995).

    Args:
        runs: results of ``run_row``, with ``dice_of_cases`` (case to Dice).
        baseline: name of the row to compare with.

    Returns:
        One line per other row that shares at least two patients with the baseline: ``row``, ``patients``,
        ``difference`` (row minus baseline), ``low`` and ``high`` (95 % confidence interval), ``better`` (number of
        patients with a positive difference) and ``p``.
    """
    scores = pd.DataFrame(
        [
            {"row": run["row"], "run": (run["seed"], run.get("fold")), "case": case, "dice": dice}
            for run in runs
            for case, dice in run["dice_of_cases"].items()
        ],
        columns=["row", "run", "case", "dice"],
    )
    of_baseline = scores[scores["row"] == baseline].drop(columns="row")
    lines = []
    for row, found in scores[scores["row"] != baseline].groupby("row", sort=False):
        both = found.merge(of_baseline, on=["run", "case"], suffixes=("", "_baseline"))
        differences = (both["dice"] - both["dice_baseline"]).groupby(both["case"]).mean().to_numpy()
        if len(differences) >= 2:
            lines.append({"row": row, **_compare(differences)})
    table = pd.DataFrame(lines, columns=["row", "patients", "difference", "low", "high", "better", "p"])
    if lines:
        table["p"] = stats.false_discovery_control(table["p"].to_numpy(float))
    return table


def _compare(differences: np.ndarray) -> dict[str, float]:
    low = high = float(differences[0])
    p = 1.0
    if np.ptp(differences):  # the bootstrap has no spread otherwise
        interval = stats.bootstrap(
            (differences,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", rng=0
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    if differences.any():
        p = float(stats.wilcoxon(differences).pvalue)
    return {
        "patients": len(differences),
        "difference": float(differences.mean()),
        "low": low,
        "high": high,
        "better": int((differences > 0).sum()),
        "p": p,
    }
