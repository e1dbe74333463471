# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

from segan_monai.quality import QualityModel, fit_quality, held_out_estimates
from segan_monai.quality.regression import fit_regression
from tests.quality.conftest import EMPTY, usual


def test_the_expected_dice_follows_the_signals(fitted):
    model = fit_quality(fitted[1])
    low, high = (
        model.estimate(*usual(soft_dice=value, agreement_axes=value))["lesion"]["expected_dice"] for value in (0.6, 0.9)
    )
    assert low == pytest.approx(0.6, abs=0.06)
    assert high == pytest.approx(0.9, abs=0.06)


def test_usual_cases_are_not_flagged_and_the_model_survives_json(fitted):
    model = fit_quality(fitted[1])
    again = QualityModel.of_record(json.loads(json.dumps(model.record())))
    found = model.estimate(*usual())["lesion"]
    assert again.estimate(*usual())["lesion"] == found
    assert found["flag"] == ""
    assert 0 < found["lower_bound"] < found["expected_dice"]


@pytest.mark.parametrize(
    ("image", "region", "reason"),
    [
        ({"T1 0.5": 3.0}, {}, "unlike the training images (T1 0.5)"),
        ({}, {"largest_part": 0.2}, "mask in pieces"),
        ({}, {"agreement_axes": 0.1}, "parts disagree"),
        ({}, {"log_ml": EMPTY}, "empty, unlike every case of the fit"),
        ({}, {"log_ml": 7.0}, "unusual volume"),
        ({}, {"soft_dice": 0.0, "agreement_axes": 0.4}, "low expected Dice"),
    ],
)
def test_a_strange_case_is_flagged_with_the_reason(fitted, image, region, reason):
    features, regions = usual(**region)
    flag = fit_quality(fitted[1]).estimate({**features, **image}, regions)["lesion"]["flag"]
    assert reason in flag.split("; ")
    assert len(flag.split("; ")) <= 2


def test_an_empty_mask_is_expected_to_be_wrong_where_no_case_was_empty(fitted):
    signals = {"log_ml": EMPTY, "soft_dice": 1.0, "agreement_axes": 1.0}
    found = fit_quality(fitted[1]).estimate(*usual(**signals))["lesion"]
    assert (found["expected_dice"], found["lower_bound"]) == (0, 0), "although it looks certain"


def test_the_margin_is_the_conformal_quantile():
    # signals say nothing, so every error is known: dice minus the mean of the other group
    dice = np.array([0.5] * 19 + [0.4])
    margin = fit_regression(np.zeros((20, 1)), dice, [0, 1] * 10, 0.9)
    assert margin.expected(np.zeros((1, 1)))[0] == pytest.approx(dice.mean())
    few = fit_regression(np.zeros((8, 1)), dice[:8], [0, 1] * 4, 0.9)
    assert few.lower_bound(np.array([0.5]))[0] == 0  # rank 9 of 8: nothing can be promised


def test_held_out_estimates_cover_nine_of_ten(fitted):
    found = held_out_estimates(fitted[1])["lesion"].measures()
    assert found["cases"] == 100
    assert 0.84 <= found["coverage"] <= 0.96
    assert found["mae"] < 0.04
    assert found["spearman"] > 0.95
    assert found["flagged"] <= 0.12
