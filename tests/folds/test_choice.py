# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pandas as pd
import pytest

from segan_monai.errors import DataError
from segan_monai.folds import choose_row

CASES = [f"case{number}" for number in range(10)]


def scores(**rows):
    """Scores of configurations, given the Dice of each case; even cases are of fold 0, odd ones of fold 1."""
    return pd.DataFrame(
        [
            {"row": row, "seed": 0, "fold": index % 2, "case": case, "patient": case, "region": "r", "dice": value}
            for row, dice in rows.items()
            for index, (case, value) in enumerate(zip(CASES, dice, strict=False))
        ]
    )


BASE = [0.80, 0.82, 0.84, 0.86, 0.88, 0.90, 0.92, 0.78, 0.76, 0.74]


def test_a_difference_that_all_patients_show_wins():
    better = [value + 0.02 + 0.001 * index for index, value in enumerate(BASE)]
    choice = choose_row(scores(cheap=BASE, dear=better), ["cheap", "dear"])
    assert (choice.winner, choice.best) == ("dear", "dear")
    assert choice.dice == pytest.approx({"cheap": 0.83, "dear": 0.83 + 0.02 + 0.0045})
    (line,) = choice.differences.to_dict("records")
    assert (line["row"], line["patients"], line["better"]) == ("cheap", 10, 0)
    assert line["difference"] == pytest.approx(-0.0245)
    assert line["low"] < -0.0245 < line["high"] < 0
    assert (
        choice.reason == "dear has the highest mean Dice, 0.855, and every cheaper configuration is worse beyond noise."
    )


def test_a_difference_within_noise_prefers_the_cheaper():
    """Nine patients lose a little and one gains much: the mean rises, but not beyond noise."""
    shifted = [value - 0.001 for value in BASE[:9]] + [BASE[9] + 0.03]
    choice = choose_row(scores(cheap=BASE, dear=shifted), ["cheap", "dear"])
    assert (choice.winner, choice.best) == ("cheap", "dear")
    assert choice.dice["dear"] - choice.dice["cheap"] == pytest.approx((0.03 - 0.009) / 10)
    assert "their paired difference, -0.0021 (95 % CI" in choice.reason
    assert choice.reason.endswith("10 patients), is within noise, so the cheaper configuration is chosen.")


def test_the_cheapest_of_those_within_noise_not_the_cheapest_of_all():
    worse = [value - 0.1 for value in BASE]
    shifted = [value - 0.001 for value in BASE[:9]] + [BASE[9] + 0.03]
    assert choose_row(scores(tiny=worse, small=BASE, large=shifted), ["tiny", "small", "large"]).winner == "small"


def test_equal_configurations_give_the_cheapest():
    choice = choose_row(scores(cheap=BASE, dear=BASE), ["cheap", "dear"])
    assert (choice.winner, choice.best) == ("cheap", "cheap")
    assert choice.reason.endswith("and is the cheapest configuration.")


def test_only_candidates_are_compared_on_patients_that_they_share():
    table = scores(failed=[1.0] * 10, cheap=BASE, dear=[0.9] * 4)
    choice = choose_row(table, ["cheap", "dear"])
    assert choice.dice == pytest.approx({"cheap": 0.83, "dear": 0.9})
    assert choice.winner == "dear"


def test_one_patient_cannot_tell_configurations_apart():
    choice = choose_row(scores(cheap=[0.1], dear=[0.9]), ["cheap", "dear"])
    assert choice.winner == "cheap"
    assert "with fewer than two patients" in choice.reason


def test_a_single_configuration_needs_no_comparison():
    choice = choose_row(scores(only=BASE), ["only"])
    assert choice.reason == "only is the only configuration with results of all folds (mean Dice 0.830)."


def test_no_candidate():
    with pytest.raises(DataError, match="no configuration has results of all folds"):
        choose_row(scores(a=BASE), [])
    apart = scores(a=BASE[:1]).assign(patient="other")
    with pytest.raises(DataError, match="a, b share no patient"):
        choose_row(pd.concat([apart, scores(b=BASE[:1])]), ["a", "b"])
