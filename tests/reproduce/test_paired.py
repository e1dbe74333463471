# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segan_monai.reproduce import format_markdown, load_tables
from segan_monai.reproduce.paired import paired_differences
from segan_monai.reproduce.table import has_collapsed
from tests.reproduce.results import result
from tests.reproduce.test_table import PLAN, TABLE


def run(row, seed, dice, fold=None):
    return {"row": row, "seed": seed, **({} if fold is None else {"fold": fold}), "dice_of_cases": dice}


def test_differences_are_means_over_the_patients_of_both_rows():
    runs = [
        run("U-Net", 0, {"a": 0.5, "b": 0.6, "c": 0.7}),
        run("U-Net", 1, {"a": 0.5, "d": 0.9}),
        run("SegAN", 0, {"a": 0.7, "b": 0.6, "e": 0.1}),  # c is missing: not compared
        run("SegAN", 1, {"a": 0.6, "d": 0.8}),
        run("SegAN", 2, {"a": 0.0}),  # the baseline has no run of this seed
    ]
    (line,) = paired_differences(runs, "U-Net").to_dict("records")
    # a: mean of .2 and .1; b: 0; d: -.1
    assert line["row"] == "SegAN"
    assert line["patients"] == 3
    assert line["better"] == 1
    assert line["difference"] == pytest.approx(0.05 / 3)
    assert -0.1 <= line["low"] <= line["difference"] <= line["high"] <= 0.15


def test_several_cases_of_a_patient_count_once():
    """Slices of one patient agree: as patients of their own, they would make the interval too narrow."""
    base = {"a1": 0.5, "a2": 0.5, "a3": 0.5, "b1": 0.5, "c": 0.5, "d": 0.5}
    better = {"a1": 0.7, "a2": 0.8, "b1": 0.6, "c": 0.4, "d": 0.5}  # a3 is in one row only
    patients = {"a1": "a", "a2": "a", "a3": "a", "b1": "b"}
    runs = [{**run(name, 0, dice), "patient_of_cases": patients} for name, dice in (("x", base), ("y", better))]
    (line,) = paired_differences(runs, "x").to_dict("records")
    assert (line["patients"], line["better"]) == (4, 2)  # a +.25, b +.1, c -.1, d 0
    assert line["difference"] == pytest.approx(0.25 / 4)
    (apart,) = paired_differences([run("x", 0, base), run("y", 0, better)], "x").to_dict("records")
    assert apart["patients"] == 5
    assert apart["difference"] == pytest.approx(0.5 / 5)


def test_a_patient_with_more_runs_counts_once():
    """Patient a has two cases in seed 0 and one in seed 1: both seeds count the same."""
    patients = {"a1": "a", "a2": "a"}
    runs = [
        {**run(name, seed, dice), "patient_of_cases": patients}
        for name, seed, dice in (
            ("x", 0, {"a1": 0.5, "a2": 0.5, "b": 0.5}),
            ("y", 0, {"a1": 0.6, "a2": 0.8, "b": 0.5}),
            ("x", 1, {"a1": 0.5, "b": 0.5}),
            ("y", 1, {"a1": 0.4, "b": 0.5}),
        )
    ]
    (line,) = paired_differences(runs, "x").to_dict("records")
    assert line["difference"] == pytest.approx(((0.2 - 0.1) / 2 + 0) / 2)


def test_folds_are_compared_with_the_same_fold():
    runs = [run("U-Net", 0, {"a": 0.5, "b": 0.5}, fold=0), run("SegAN", 0, {"a": 0.9, "b": 0.9}, fold=1)]
    assert paired_differences(runs, "U-Net").empty


def test_interval_and_p_value_of_known_samples():
    generator = np.random.default_rng(0)
    base = generator.uniform(0.5, 0.8, 40)
    noise = generator.normal(0, 0.02, 40)

    def row(name, values):
        return run(name, 0, dict(zip(map(str, range(40)), values, strict=True)))

    runs = [row("base", base), row("better", base + 0.02 + noise), row("alike", base + noise), row("same", base)]
    found = paired_differences(runs, "base").set_index("row")
    spread = 1.96 * noise.std(ddof=1) / np.sqrt(40)
    better = found.loc["better"]
    assert better["low"] == pytest.approx(better["difference"] - spread, abs=0.001)
    assert better["high"] == pytest.approx(better["difference"] + spread, abs=0.001)
    assert better["p"] < 0.001 < 0.05 < found.loc["alike", "p"]
    assert found.loc["same", ["low", "high", "p"]].tolist() == [0, 0, 1]


def test_five_patients_all_better():
    """The exact two-sided P value is 2 / 2^5 with one row."""
    base = dict.fromkeys("abcde", 0.5)
    better = {case: 0.6 + 0.01 * index for index, case in enumerate("abcde")}
    (line,) = paired_differences([run("x", 0, base), run("y", 0, better)], "x").to_dict("records")
    assert line["p"] == pytest.approx(2 / 2**5)
    assert line["difference"] == pytest.approx(0.12)


def test_table_shows_the_comparison_and_collapsed_runs():
    runs = [
        {**result(row, 0, left, 0.5, failures), "dice_of_cases": {"a": left, "b": left + 0.02}}
        for row, left, failures in (("SegAN", 0.8, 0), ("U-Net", 0.7, 3))
    ]
    text = format_markdown(replace(PLAN, table=replace(TABLE, baseline="U-Net")), runs)
    assert "| SegAN | 2 | +0.100 | +0.100 to +0.100 | 2 | 0.5 |" in text
    assert "Collapsed runs (a region with a Dice of 0 in more than half of the cases): U-Net 1 of 1." in text
    assert "paired" not in format_markdown(PLAN, runs)


@pytest.mark.parametrize(("failures", "collapsed"), [(2, False), (3, True)])
def test_a_run_collapsed_if_most_cases_of_a_region_failed(failures, collapsed):
    assert has_collapsed(result("SegAN", 0, 0.8, 0.5, failures)) is collapsed


def test_every_baseline_is_a_row():
    for table in load_tables("segan"):
        assert table.baseline is None or table.baseline in table.rows
