# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The quality estimate of a segmentation: expected Dice, lower bound and flag per region."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segan_monai.quality.image_distance import ImageReference, held_out_distances
from segan_monai.quality.regression import Beside, Regression, fit_regression, held_out_expected
from segan_monai.quality.signals import EMPTY_LOG_ML

COVERAGE = 0.9
NEVER_EMPTY = "empty, unlike every case of the fit"
FALSE_ALARMS = 0.05
"""Share of cases like those of the training that is flagged, over all reasons of a region together [ours]."""
OF_PARTS = ("agreement_axes", "agreement_mirrors", "largest_part")
DISTANCE, EXPECTED = "image_distance", "expected_dice"
REASONS = {
    DISTANCE: "unlike the training images",
    "largest_part": "mask in pieces",
    "log_ml": "unusual volume",
    EXPECTED: "low expected Dice",
}
"""Reason of each oddity in words; that of all others is that parts disagree."""
LEAST_WIDTH = 0.01

Row = dict[str, Any]


@dataclass(frozen=True)
class RegionQuality:
    """Regression and limits of one region.

    Attributes:
        regression: from the signals to the expected Dice.
        usual: by name of an oddity, see ``oddities``, its median and the distance from there to its 95 % quantile.
        limit: oddity above which a case is flagged, in units of that distance.
        median_log_ml: median of ``log_ml``.
        sometimes_empty: whether a prediction was empty among the cases of the fit.
    """

    regression: Regression
    usual: dict[str, list[float]]
    limit: float
    median_log_ml: float
    sometimes_empty: bool

    def reasons(self, signals: Mapping[str, float], expected: float, strangest: str) -> list[str]:
        """Return the reasons to flag a case, in words.

        Args:
            signals: those of the region, and ``DISTANCE``.
            expected: its expected Dice.
            strangest: feature of the image that is farthest from the training images.
        """
        empty = signals["log_ml"] <= EMPTY_LOG_ML and not self.sometimes_empty
        reasons = [NEVER_EMPTY] if empty else []
        odd = oddities(signals, expected, self.median_log_ml)
        for name, value in odd.items():
            median, width = self.usual[name]
            text = REASONS.get(name, "parts disagree")
            if (value - median) / width > self.limit and text not in reasons and not (empty and name == "log_ml"):
                reasons.append(text)
        return [f"{text} ({strangest})" if text == REASONS[DISTANCE] else text for text in reasons]

    def record(self) -> dict[str, Any]:
        """Return plain values, the arguments of ``RegionQuality`` and ``Regression``."""
        return {**self.__dict__, "regression": self.regression.record()}


def oddities(signals: Mapping[str, float], expected: float, median_log_ml: float) -> dict[str, float]:
    """Return numbers of which a larger one is a reason for doubt, by name."""
    parts = {name: _log_of_lack(value) for name, value in signals.items() if name in OF_PARTS}
    volume = abs(signals["log_ml"] - median_log_ml)
    return {DISTANCE: signals[DISTANCE], **parts, "log_ml": volume, EXPECTED: _log_of_lack(expected)}


def _log_of_lack(value: float) -> float:
    """Return the logarithm of 1 minus a Dice or a share, whose tail is shorter."""
    return math.log(1 + LEAST_WIDTH - min(value, 1.0))


@dataclass(frozen=True)
class QualityModel:
    """Estimates of the Dice of segmentations from their signals.

    Attributes:
        signals: names of the S signals of a region, in the order of the regressions.
        image: features of the training images.
        regions: by name.
    """

    signals: list[str]
    image: ImageReference
    regions: dict[str, RegionQuality]

    def estimate(self, image: Mapping[str, float], regions: Mapping[str, Mapping[str, float]]) -> dict[str, Row]:
        """Return ``expected_dice``, ``lower_bound`` and ``flag`` (empty, or the reasons) of every region.

        Args:
            image: result of ``image_features``.
            regions: result of ``region_signals``.
        """
        distance = self.image.distance(image)
        found = {}
        for name, of_region in self.regions.items():
            values = {**regions[name], DISTANCE: math.log(distance + 1e-6)}
            row = np.array([[values[signal] for signal in self.signals]])
            expected = of_region.regression.expected(row)
            reasons = of_region.reasons(values, float(expected[0]), self.image.strangest(image))
            bound = of_region.regression.lower_bound(expected)
            if NEVER_EMPTY in reasons:  # an empty mask looks certain, but the region was in every case of the fit
                expected, bound = np.zeros(1), np.zeros(1)
            found[name] = {
                "expected_dice": round(float(expected[0]), 4),
                "lower_bound": round(float(bound[0]), 4),
                "flag": "; ".join(reasons),
            }
        return found

    def record(self) -> dict[str, Any]:
        """Return plain values for ``QualityModel.of_record``."""
        return {
            "signals": self.signals,
            "image": self.image.record(),
            "regions": {name: of_region.record() for name, of_region in self.regions.items()},
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> QualityModel:
        """Return the model of plain values.

        Raises:
            KeyError, TypeError: They are not those of ``record``.
        """
        regions = {}
        for name, of_region in record["regions"].items():
            regions[name] = RegionQuality(**{**of_region, "regression": Regression(**of_region["regression"])})
        return cls(list(record["signals"]), ImageReference(**record["image"]), regions)


@dataclass(frozen=True)
class FitCase:
    """Signals and Dice of an out-of-fold case.

    Attributes:
        group: fold of the fit; cases of one patient share it.
        image: result of ``image_features``.
        regions: result of ``region_signals``, or other signals with ``log_ml``.
        dice: by region; regions without a label are absent.
        case: name.
    """

    group: Any
    image: Mapping[str, float]
    regions: Mapping[str, Mapping[str, float]]
    dice: Mapping[str, float]
    case: str = ""


def fit_quality(cases: Sequence[FitCase], others: Sequence[FitCase] = ()) -> QualityModel:
    """Fit a model to out-of-fold cases with the same regions, signals and image features.

    Args:
        cases: usual results, which decide the margin of the lower bound and what is flagged.
        others: results to which the regressions are fitted as well, such as corrupted masks, so that they need not
            extrapolate to them. Their groups are those of the same patients.
    """
    features = list(cases[0].image)
    images = np.array([[case.image[name] for name in features] for case in cases])
    distances = held_out_distances(features, images, [case.group for case in cases])
    regions = list(cases[0].regions)
    signals = list(next(iter(cases[0].regions.values())))
    found = {}
    for region in regions:
        chosen = [index for index, case in enumerate(cases) if not math.isnan(case.dice.get(region, math.nan))]
        of_region = [{**cases[i].regions[region], DISTANCE: math.log(distances[i] + 1e-6)} for i in chosen]
        dice = np.array([cases[i].dice[region] for i in chosen])
        beside = [case for case in others if not math.isnan(case.dice.get(region, math.nan))]
        found[region] = _of_region(
            signals, of_region, dice, [cases[i].group for i in chosen], _table(beside, region, signals)
        )
    return QualityModel(signals, ImageReference.of(features, images), found)


def _table(cases: Sequence[FitCase], region: str, signals: Sequence[str]) -> Beside | None:
    """Return signals (N, S), Dice (N) and groups of the region in cases; None without cases."""
    if not cases:
        return None
    rows = [[case.regions[region][name] for name in signals] for case in cases]
    return np.array(rows), np.array([case.dice[region] for case in cases]), [case.group for case in cases]


def _of_region(
    signals: Sequence[str],
    rows: Sequence[Mapping[str, float]],
    dice: np.ndarray,
    groups: Sequence[Any],
    beside: Beside | None,
) -> RegionQuality:
    table = np.array([[row[name] for name in signals] for row in rows])
    regression = fit_regression(table, dice, groups, COVERAGE, beside)
    log_ml = [row["log_ml"] for row in rows]
    median = float(np.median(log_ml))
    expected = held_out_expected(table, dice, groups, beside)
    odd = [oddities(row, float(value), median) for row, value in zip(rows, expected, strict=True)]
    columns = {name: np.array([row[name] for row in odd]) for name in odd[0]}
    usual = {}
    for name, values in columns.items():
        middle, high = np.quantile(values, (0.5, 0.95))
        usual[name] = [float(middle), max(float(high - middle), LEAST_WIDTH)]
    highest = np.sort(np.max([(columns[name] - usual[name][0]) / usual[name][1] for name in columns], axis=0))
    rank = min(math.ceil((len(highest) + 1) * (1 - FALSE_ALARMS)), len(highest))
    return RegionQuality(regression, usual, float(highest[rank - 1]), median, min(log_ml) <= EMPTY_LOG_ML)
