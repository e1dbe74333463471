# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from segan_monai.quality.calibration import (
    LOGITS,
    calibration_counts,
    calibration_error,
    calibration_of,
    fit_temperature,
    read_counts,
    write_counts,
)


def drawn(temperature, count=200_000):
    """Voxels whose logits are too high by a factor."""
    rng = np.random.default_rng(0)
    logits = rng.uniform(-3, 3, count)
    truth = rng.random(count) < 1 / (1 + np.exp(-logits))
    return calibration_counts(1 / (1 + np.exp(-logits * temperature)), truth, np.ones(count, bool))


def test_counts_are_of_known_voxels_by_logit():
    probabilities = np.array([0.5, 0.5, 1.0, 0.9, 0.001])  # the fourth is unknown, the last is not considered
    known = np.array([True, True, True, False, True])
    counts = calibration_counts(probabilities, np.array([True, False, True, True, True]), known)
    assert counts.sum() == 3
    middle = int(np.abs(LOGITS).argmin())
    assert counts[:, middle].tolist() == [1, 1]
    assert counts[1, -1] == 1


def test_the_temperature_is_found_and_mends_the_error():
    counts = drawn(2.0)
    temperature = fit_temperature(counts)
    assert temperature == pytest.approx(2, abs=0.05)
    assert calibration_error(counts) > 0.08
    assert calibration_error(counts, temperature) < 0.01
    counts[0, 0] += 10**7  # certain background decides nothing
    assert fit_temperature(counts) == temperature


def test_calibrated_probabilities_have_no_error():
    counts = drawn(1.0)
    assert calibration_error(counts) < 0.01
    assert fit_temperature(counts) == pytest.approx(1, abs=0.03)


def test_the_error_is_the_mean_gap():
    # 4 voxels at probability 1/2, all foreground; 4 of probability near 0, which nobody considers
    counts = calibration_counts(np.array([0.5] * 4 + [1e-5] * 4), np.array([True] * 4 + [False] * 4), np.ones(8, bool))
    assert calibration_error(counts) == pytest.approx(0.5)


def test_counts_are_read_as_they_were_written(tmp_path):
    counts = {"NA": drawn(2.0, 1000), "left, upper": drawn(1.0, 1000)}
    write_counts(tmp_path / "calibration.csv", counts)
    found = read_counts(tmp_path / "calibration.csv")
    assert list(found) == list(counts)
    assert all(np.array_equal(found[name], counts[name]) for name in counts)
    assert (tmp_path / "calibration.csv").read_text(encoding="utf-8").splitlines()[1] == "NA,-12.0,0,0"


def test_a_region_without_considered_voxels_is_absent():
    found = calibration_of({"a": drawn(2.0), "b": np.zeros((2, len(LOGITS)), int)})
    assert list(found) == ["a"]
    assert found["a"]["temperature"] == pytest.approx(2, abs=0.05)
    assert found["a"]["error_at_temperature"] < 0.01 < 0.08 < found["a"]["expected_calibration_error"]
