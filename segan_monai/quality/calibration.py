# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Calibration of probabilities: expected calibration error, and the temperature that would mend it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize

from segan_monai.files import whole_file

CALIBRATION = "calibration.json"
"""Name of the file of a calibration in the folder of its evaluation."""
COUNTS = "calibration.csv"
"""Name of the file of the counts beside it, from which several evaluations can be pooled."""

LARGEST_LOGIT = 12.0
LOGITS = np.linspace(-LARGEST_LOGIT, LARGEST_LOGIT, 241)
"""Logits to which voxels are rounded, in steps of 0.1."""
BINS = 15
CONSIDERED = 0.01
"""Voxels of lower probability do not count, or the background would decide everything [ours]."""


def calibration_counts(probabilities: np.ndarray, references: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return how many voxels of each rounded logit are background and foreground, (2, 241).

    Voxels far below ``CONSIDERED`` are omitted: they are most of a volume, and decide nothing.

    Args:
        probabilities: values from 0 to 1.
        references: boolean, of the same shape.
        known: boolean, whether the label is known.
    """
    used = known & (probabilities >= CONSIDERED / 2)
    p = np.clip(probabilities[used].astype(np.float64), 1e-9, 1 - 1e-9)
    index = np.rint((np.log(p / (1 - p)) + LARGEST_LOGIT) * 10).clip(0, len(LOGITS) - 1).astype(int)
    truth = references[used]
    return np.stack([np.bincount(index[truth == value], minlength=len(LOGITS)) for value in (0, 1)])


def calibration_error(counts: np.ndarray, temperature: float = 1.0) -> float:
    """Return the expected calibration error (Guo et al. 2017) in 15 equal bins, weighted by their voxels.

    Voxels count whose probability before the temperature is at least ``CONSIDERED``; NaN without any.

    Args:
        counts: result of ``calibration_counts``, summed over cases.
        temperature: divisor of the logits.
    """
    logits, (background, foreground) = _considered(counts)
    total = background + foreground
    if not total.sum():
        return float("nan")
    p = _sigmoid(logits / temperature)
    index = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = np.bincount(index, total * p - foreground, minlength=BINS)
    return float(np.abs(gaps).sum() / total.sum())


def fit_temperature(counts: np.ndarray) -> float:
    """Return the temperature of the lowest cross-entropy of the considered voxels, from 0.1 to 10.

    Above 1, the network is too certain.
    """
    logits, (background, foreground) = _considered(counts)

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(background @ np.logaddexp(0, scaled) + foreground @ np.logaddexp(0, -scaled))

    limits = (np.log(0.1), np.log(10))
    return float(np.exp(optimize.minimize_scalar(cross_entropy, bounds=limits, method="bounded").x))


def calibration_of(counts: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return ``expected_calibration_error``, ``temperature`` and ``error_at_temperature`` by region.

    Regions without a considered voxel are absent.

    Args:
        counts: by region, the result of ``calibration_counts``, summed over cases.
    """
    found = {}
    for region, of_region in counts.items():
        error, temperature = calibration_error(of_region), fit_temperature(of_region)
        if not math.isnan(error):
            found[region] = {
                "expected_calibration_error": round(error, 5),
                "temperature": round(temperature, 4),
                "error_at_temperature": round(calibration_error(of_region, temperature), 5),
            }
    return found


def write_counts(file: Path, counts: Mapping[str, np.ndarray]) -> None:
    """Write counts as CSV: ``region``, ``logit``, ``background`` and ``foreground``.

    Args:
        file: the file.
        counts: see ``calibration_of``.

    Raises:
        OutputError: The file cannot be written.
    """
    parts = [
        pd.DataFrame({"region": name, "logit": LOGITS.round(1), "background": background, "foreground": foreground})
        for name, (background, foreground) in counts.items()
    ]
    with whole_file(file) as temporary:
        pd.concat(parts).to_csv(temporary, index=False)


def read_counts(file: Path) -> dict[str, np.ndarray]:
    """Read what ``write_counts`` wrote."""
    table = pd.read_csv(file, dtype={"region": str}, keep_default_na=False)
    of_regions = table.groupby("region", sort=False)[["background", "foreground"]]
    return {str(name): rows.to_numpy().T for name, rows in of_regions}


def _considered(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    used = _sigmoid(LOGITS) >= CONSIDERED
    return LOGITS[used], counts[:, used]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
