# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Ridge regression of Dice on signals, with a conformal lower bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

PENALTY = 5.0
"""Strength of the ridge, in cases [ours]; it is not tuned, so no case decides it."""
LARGEST_Z = 4.0
"""Standardized signals are limited to this, so that strange cases are not extrapolated without bound [ours]."""
LEAST_MARGIN = 0.05

Beside = tuple[np.ndarray, np.ndarray, Sequence[Any]]
"""Signals (M, S), Dice (M) and groups of other results, to which a regression is fitted as well."""


@dataclass(frozen=True)
class Regression:
    """Linear function from signals to the expected Dice.

    Attributes:
        mean: means of the S signals.
        spread: standard deviations of the signals.
        weights: weights of the standardized signals.
        intercept: expected Dice of mean signals.
        low: lower bound of the margin, in units of ``scale``; infinite if there are too few cases.
    """

    mean: list[float]
    spread: list[float]
    weights: list[float]
    intercept: float
    low: float = math.inf

    def expected(self, signals: np.ndarray) -> np.ndarray:
        """Return the expected Dice of signals (N, S), from 0 to 1."""
        return np.clip(self.intercept + _standardized(signals, self.mean, self.spread) @ np.array(self.weights), 0, 1)

    def lower_bound(self, expected: np.ndarray) -> np.ndarray:
        """Return the lower bound of the Dice at an expected Dice."""
        return np.clip(expected - self.low * scale(expected), 0, 1)

    def record(self) -> dict[str, Any]:
        """Return plain values, the arguments of the class."""
        return asdict(self)


def scale(expected: np.ndarray) -> np.ndarray:
    """Return the unit of the margin: errors are larger where a lower Dice is expected [ours]."""
    return np.maximum(1 - expected, LEAST_MARGIN)


def fit_regression(
    signals: np.ndarray, dice: np.ndarray, groups: Sequence[Any], coverage: float, beside: Beside | None = None
) -> Regression:
    """Fit a regression, and the margin that a share ``coverage`` of new cases keeps.

    The margin is the split-conformal quantile (Vovk et al. 2005; Lei et al. 2018) of the errors of each group by a
    regression on all others (cross-conformal, Vovk 2015), so all cases serve both purposes.

    Args:
        signals: (N, S).
        dice: (N).
        groups: fold of each case; cases of one patient share a fold.
        coverage: share of cases whose Dice shall be above the lower bound.
        beside: other results, which do not decide the margin.
    """
    expected = held_out_expected(signals, dice, groups, beside)
    errors = np.sort((expected - dice) / scale(expected))
    rank = math.ceil((len(errors) + 1) * coverage)
    low = max(float(errors[rank - 1]), 0.0) if rank <= len(errors) else math.inf
    return replace(fit_ridge(*_joined(signals, dice, beside)), low=low)


def held_out_expected(
    signals: np.ndarray, dice: np.ndarray, groups: Sequence[Any], beside: Beside | None = None
) -> np.ndarray:
    """Return the expected Dice (N) of each case by a regression on the cases of all other groups."""
    found = np.empty(len(dice))
    for group in set(groups):
        inside = np.array([other == group for other in groups])
        others = None
        if beside is not None:
            kept = np.array([other != group for other in beside[2]])
            others = beside[0][kept], beside[1][kept], [other for other in beside[2] if other != group]
        found[inside] = fit_ridge(*_joined(signals[~inside], dice[~inside], others)).expected(signals[inside])
    return found


def _joined(signals: np.ndarray, dice: np.ndarray, beside: Beside | None) -> tuple[np.ndarray, np.ndarray]:
    if beside is None:
        return signals, dice
    return np.concatenate([signals, beside[0]]), np.concatenate([dice, beside[1]])


def fit_ridge(signals: np.ndarray, dice: np.ndarray) -> Regression:
    """Fit signals (N, S) to Dice (N) by least squares with ``PENALTY`` on the squared standardized weights."""
    mean, spread = signals.mean(0), np.maximum(signals.std(0), 1e-6)
    z = _standardized(signals, mean, spread)
    centred = z - z.mean(0)
    weights = np.linalg.solve(centred.T @ centred + PENALTY * np.eye(z.shape[1]), centred.T @ dice)
    return Regression(mean.tolist(), spread.tolist(), weights.tolist(), float(dice.mean() - z.mean(0) @ weights))


def _standardized(signals: np.ndarray, mean: Any, spread: Any) -> np.ndarray:
    return np.clip((signals - np.array(mean)) / np.array(spread), -LARGEST_Z, LARGEST_Z)
