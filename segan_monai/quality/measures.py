# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""How good an estimate of quality is: coverage, AURC, Spearman's correlation and mean absolute error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from segan_monai.quality.estimate import FitCase, fit_quality


@dataclass(frozen=True)
class HeldOut:
    """Estimates of cases by a model that was fitted without their group.

    Attributes:
        dice, expected, lower_bound, flagged: (N) each, of one region.
        signals: raw signals of the same cases, by name.
    """

    dice: np.ndarray
    expected: np.ndarray
    lower_bound: np.ndarray
    flagged: np.ndarray
    signals: dict[str, np.ndarray]

    def measures(self) -> dict[str, float]:
        """Return ``cases``, ``coverage``, ``aurc``, ``spearman``, ``mae`` and ``flagged``, a share."""
        return {
            "cases": len(self.dice),
            "coverage": round(float((self.dice >= self.lower_bound).mean()), 4),
            "aurc": round(aurc(self.expected, self.dice), 4),
            "spearman": round(spearman(self.expected, self.dice), 4),
            "mae": round(float(np.abs(self.expected - self.dice).mean()), 4),
            "flagged": round(float(self.flagged.mean()), 4),
        }

    def single_signals(self) -> dict[str, dict[str, float]]:
        """Return ``aurc`` and ``spearman`` of each signal alone, for comparison."""
        return {
            name: {"aurc": round(aurc(values, self.dice), 4), "spearman": round(spearman(values, self.dice), 4)}
            for name, values in self.signals.items()
        }


def without_order(measures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a sentence for each region whose cases the expected Dice does not rank.

    Args:
        measures: results of ``HeldOut.measures``, by region.
    """
    return [
        f"the expected Dice of {region} does not rank the cases of the fit (Spearman {found['spearman']:.3f}): do not "
        "order cases by it."
        for region, found in measures.items()
        if found["spearman"] <= 0
    ]


def held_out_estimates(
    cases: Sequence[FitCase], others: Sequence[FitCase] = (), estimated: Sequence[FitCase] | None = None
) -> dict[str, HeldOut]:
    """Estimate the cases of each group by a model that is fitted on all others, by region.

    Args:
        cases: usual results, see ``fit_quality``.
        others: see ``fit_quality``.
        estimated: results to estimate, whose groups are those of the same patients; None for ``cases``.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for group in dict.fromkeys(case.group for case in cases):
        model = fit_quality(*([case for case in part if case.group != group] for part in (cases, others)))
        for case in cases if estimated is None else estimated:
            if case.group != group:
                continue
            for region, found in model.estimate(case.image, case.regions).items():
                dice = case.dice.get(region, np.nan)
                if not np.isnan(dice):
                    rows.setdefault(region, []).append({"dice": dice, **found, **case.regions[region]})
    return {region: _joined(of_region) for region, of_region in rows.items()}


def _joined(rows: Sequence[Mapping[str, Any]]) -> HeldOut:
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    dice, expected, bound, flag = (columns.pop(name) for name in ("dice", "expected_dice", "lower_bound", "flag"))
    return HeldOut(dice, expected, bound, flag != "", columns)


def aurc(confidence: np.ndarray, dice: np.ndarray) -> float:
    """Return the area under the risk-coverage curve (Geifman and El-Yaniv 2017), with 1 - Dice as risk.

    The mean, over n from 1 to N, of the risk of the n most confident cases. Cases of equal confidence share the mean of
    their risks. Lower is better.

    Examples:
        >>> aurc(np.array([0.9, 0.1]), np.array([1.0, 0.5]))  # (0 + 0.25) / 2
        0.125
    """
    risks = 1 - dice
    _, index = np.unique(confidence, return_inverse=True)
    mean_of_level = np.bincount(index, risks) / np.bincount(index)
    ordered = mean_of_level[index][np.argsort(-confidence, kind="stable")]
    return float((np.cumsum(ordered) / np.arange(1, len(ordered) + 1)).mean())


def spearman(confidence: np.ndarray, dice: np.ndarray) -> float:
    """Return Spearman's rank correlation; 0 if one side is constant."""
    if len(np.unique(confidence)) < 2 or len(np.unique(dice)) < 2:
        return 0.0
    return float(stats.spearmanr(confidence, dice).statistic)
