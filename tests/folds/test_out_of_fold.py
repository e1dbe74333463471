# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from segan_monai.errors import DataError
from segan_monai.folds import check_complete, out_of_fold_scores, summarize_rows
from tests.folds.results import one_region, write_fold


def test_every_case_counts_once_over_all_folds(tmp_path):
    """The mean is over cases, not over the means of folds of different sizes."""
    runs = [
        write_fold(tmp_path, "A", 0, {"a": {"head": 0.9, "tail": 0.5}}, not_evaluated={"b": "no image"}, hd95=1.0),
        write_fold(
            tmp_path, "A", 1, {"c": {"head": 0.6, "tail": 0.0}, "d": {"head": 0.3, "tail": 0.4}}, hd95=float("inf")
        ),
    ]
    scores = out_of_fold_scores(runs)
    assert scores.groupby("case")["fold"].first().to_dict() == {"a": 0, "c": 1, "d": 1}
    head, tail, mean = summarize_rows(scores).to_dict("records")
    assert (head["region"], head["cases"], head["worst"], head["worst_case"]) == ("head", 3, 0.3, "d")
    assert head["dice"] == pytest.approx((0.9 + 0.6 + 0.3) / 3)
    assert head["median"] == 0.6
    assert head["hd95_mm"] == float("inf")  # of 1, inf, inf
    assert head["failed_cases"] == []
    assert tail["failed_cases"] == ["c"]
    # cases: .7, .3, .35
    assert (mean["region"], mean["worst_case"], mean["failed_cases"]) == ("mean", "c", ["c"])
    assert (mean["dice"], mean["median"], mean["worst"]) == pytest.approx((1.35 / 3, 0.35, 0.3))
    assert check_complete(runs) == ["A, seed 0: case b was not evaluated: no image"]


def test_seeds_are_averaged_within_a_case(tmp_path):
    runs = [write_fold(tmp_path, "A", 0, one_region(a=first, b=0.5), seed=seed) for seed, first in ((0, 0.0), (1, 0.8))]
    (line,) = summarize_rows(out_of_fold_scores(runs)).to_dict("records")
    assert (line["cases"], line["failed_cases"]) == (2, ["a"])
    assert (line["dice"], line["worst"], line["worst_case"]) == pytest.approx((0.45, 0.4, "a"))
    assert check_complete(runs) == [f"A, seed {seed}: 2 of 4 cases were in no evaluated fold." for seed in (0, 1)]


def test_an_unknown_spacing_leaves_no_distance(tmp_path):
    """An empty mask is infinitely far from any other, whatever the spacing, so its case alone would decide."""
    found = {"a": {"head": 0.0, "tail": 0.0}}, {"c": {"head": 0.6, "tail": 0.5}, "d": {"head": 0.3, "tail": 0.4}}
    runs = [
        write_fold(tmp_path, "A", fold, dice, hd95=hd95)
        for fold, (dice, hd95) in enumerate(zip(found, (float("inf"), float("nan")), strict=True))
    ]
    lines = summarize_rows(out_of_fold_scores(runs))
    assert lines["hd95_mm"].isna().all()
    assert lines["dice"].tolist() == pytest.approx([0.3, 0.3, 0.3])


def test_a_case_that_was_trained_on_is_refused(tmp_path):
    run = write_fold(tmp_path, "A", 0, one_region(a=1.0, b=1.0), training=["b", "c"])
    with pytest.raises(DataError, match=r"oof scores 1 cases that its network was trained on, such as b\. Delete"):
        out_of_fold_scores([run])


def test_a_damaged_split_is_named(tmp_path):
    run = write_fold(tmp_path, "A", 0, one_region(a=1.0, b=1.0), training=["c"])
    (run.training / "split.json").write_text('{"training": ["c"]}', encoding="utf-8")
    for read in (out_of_fold_scores, check_complete):
        with pytest.raises(DataError, match=r"split\.json .* it has no 'validation'; expected .* Delete its folder"):
            read([run])


def test_a_case_of_two_folds_is_refused(tmp_path):
    runs = [write_fold(tmp_path, "A", fold, one_region(a=1.0), training=["x"]) for fold in (0, 1)]
    with pytest.raises(DataError, match=r"row 'A': case a was scored in folds 0, 1; expected one fold"):
        out_of_fold_scores(runs)
