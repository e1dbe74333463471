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

    Only runs of the same seed, fold, number of labelled cases and draw of these are compared, on the cases that both
    rows evaluated. A patient's Dice is the mean over these cases and their regions; the difference of a patient is the
    mean over all such runs in which the patient was held out. Patients are then the units: the confidence interval is
    the percentile bootstrap over patients, and the P value is that of the two-sided Wilcoxon signed-rank test,
    corrected for the number of lines (Benjamini and Hochberg, 1995).

    With several draws of the labelled cases, the bootstrap resamples draws and patients, each by itself, because
    another draw would change the result as another patient would. Draws in which not all of these patients were held
    out are not resampled.

    Args:
        runs: results of ``run_row``, with ``dice_of_cases`` (case to Dice) and ``patient_of_cases`` (case to patient;
            a case that it lacks is a patient of its own).
        baseline: name of the row to compare with.

    Returns:
        One line per other row, and number of labelled cases, that shares at least two patients with the baseline:
        ``row``, ``labels`` (NaN for all), ``patients``, ``difference`` (row minus baseline), ``low`` and ``high`` (95 %
        confidence interval), ``better`` (number of patients with a positive difference), ``draws``, ``draws_better``
        (number of draws with a positive mean difference) and ``p``.
    """
    scores = _scores(runs)
    of_baseline = scores.loc[scores["row"] == baseline, ["run", "case", "dice"]]
    lines = []
    others = scores[scores["row"] != baseline].groupby(["row", "labels"], sort=False, dropna=False)
    for (row, labels), found in others:
        both = found.merge(of_baseline, on=["run", "case"], suffixes=("", "_baseline"))
        both["difference"] = both["dice"] - both["dice_baseline"]
        of_runs = both.groupby(["draw", "run", "patient"], as_index=False)["difference"].mean()
        by_draw = of_runs.pivot_table("difference", index="draw", columns="patient")  # the mean over seeds and folds
        if by_draw.shape[1] >= 2:
            differences = of_runs.groupby("patient")["difference"].mean()
            lines.append({"row": row, "labels": labels, **_compare(by_draw.to_numpy(), differences.to_numpy())})
    columns = ["row", "labels", "patients", "difference", "low", "high", "better", "draws", "draws_better", "p"]
    table = pd.DataFrame(lines, columns=columns)
    if lines:
        table["p"] = stats.false_discovery_control(table["p"].to_numpy(float))
    return table


def _scores(runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one line per run and case; ``labels`` is NaN for all labels."""
    return pd.DataFrame(
        [
            {
                "row": run["row"],
                "labels": run.get("labels", np.nan),
                "draw": run.get("draw", 0),
                "run": tuple(run.get(name) for name in ("seed", "fold", "labels", "draw")),
                "case": case,
                "patient": run.get("patient_of_cases", {}).get(case, case),
                "dice": dice,
            }
            for run in runs
            for case, dice in run["dice_of_cases"].items()
        ],
        columns=["row", "labels", "draw", "run", "case", "patient", "dice"],
    )


def _compare(by_draw: np.ndarray, differences: np.ndarray) -> dict[str, float]:
    """Compare rows.

    Args:
        by_draw: differences of draws and patients (draws, patients), NaN where a patient was not held out.
        differences: differences of patients (patients,), means over all runs.
    """
    whole = by_draw[~np.isnan(by_draw).any(axis=1)]
    samples: tuple[np.ndarray, ...] = (differences,)
    statistic: Any = np.mean
    if len(whole) > 1:
        samples = np.arange(len(whole)), np.arange(whole.shape[1])

        def statistic(draws: np.ndarray, patients: np.ndarray) -> float:
            return whole[np.ix_(draws, patients)].mean()

    low = high = float(differences.mean())
    p = 1.0
    if np.ptp(whole if len(whole) > 1 else differences):  # the bootstrap has no spread otherwise
        interval = stats.bootstrap(
            samples,
            statistic,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            vectorized=False if len(whole) > 1 else None,
            rng=0,
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
        "draws": len(by_draw),
        "draws_better": int((np.nanmean(by_draw, axis=1) > 0).sum()),
        "p": p,
    }


def share_of_gap(runs: Sequence[Mapping[str, Any]], baseline: str, all_labels: str) -> dict[tuple[str, int], float]:
    """Return which share of the gap between the baseline and the row with every label each row closes.

    A row's Dice is the mean over patients of their means over its runs; all on the patients that the three rows share.

    Returns:
        (row - baseline) / (all labels - baseline) by row and number of labelled cases; 1 for as good as every label.
        Rows whose gap is not positive are omitted.
    """
    scores = _scores(runs).fillna({"labels": 0}).astype({"labels": int})
    in_run = scores.groupby(["row", "labels", "run", "patient"], as_index=False)["dice"].mean()
    of_patients = {name: found.groupby("patient")["dice"].mean() for name, found in in_run.groupby(["row", "labels"])}
    whole = of_patients.get((all_labels, 0))
    shares = {}
    for (row, labels), found in of_patients.items():
        lowest = of_patients.get((baseline, labels))
        if whole is None or lowest is None or row in (baseline, all_labels):
            continue
        means = pd.concat([found, lowest, whole], axis=1, join="inner").mean()
        reached, gap = means.iloc[0] - means.iloc[1], means.iloc[2] - means.iloc[1]
        if gap > 0:
            shares[row, labels] = float(reached / gap)
    return shares
