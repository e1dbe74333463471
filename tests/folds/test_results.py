# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segan_monai.folds import configurations, write_results
from segan_monai.quality.calibration import calibration_counts, write_counts
from segan_monai.reproduce import Plan
from tests.folds.results import one_region, write_fold


@pytest.fixture
def plan(tmp_path) -> Plan:
    return Plan(configurations("hippocampus", ["2-D=axial_slices", "2.5-D="]), Path("Task04"), tmp_path)


def test_the_files_have_scores_and_choice(tmp_path, plan):
    runs = [
        write_fold(tmp_path, row, fold, one_region(**dict.fromkeys(cases, dice)))
        for row, dice in (("2-D", 0.5), ("2.5-D", 0.75))
        for fold, cases in enumerate(("ab", "cd"))
    ]
    # probability 1/2 where three of four voxels are foreground
    counts = calibration_counts(np.full(4, 0.5), np.array([True, True, True, False]), np.ones(4, bool))
    for run in runs[:2]:
        write_counts(run.evaluation / "calibration.csv", {"tumour": counts})
    found = write_results(plan, runs, {}, ensembles=False, region_rules=False)
    assert found.record is not None
    assert found.record["winner"] == "2.5-D"  # better by .25 in all four
    assert json.loads((tmp_path / "folds.json").read_text(encoding="utf-8")) == found.record
    assert (tmp_path / "folds.md").read_text(encoding="utf-8") == found.text
    table = pd.read_csv(tmp_path / "folds.csv")
    assert table.groupby("row")["dice"].agg(["count", "mean"]).to_dict("index") == {
        "2-D": {"count": 4, "mean": 0.5},
        "2.5-D": {"count": 4, "mean": 0.75},
    }
    assert found.record["rows"]["2-D"]["calibration"]["tumour"]["expected_calibration_error"] == 0.25
    assert found.record["rows"]["2.5-D"]["calibration"] is None
    assert "| 2-D | tumour | 0.2500 | " in found.text
    assert "2.5-D: no calibration over all folds" in found.text


@pytest.mark.parametrize(("complete", "lacking"), [("2-D", "2.5-D"), ("2.5-D", "2-D")])
def test_an_ensemble_whose_member_lacks_a_case_is_no_candidate(tmp_path, plan, complete, lacking):
    runs = [
        write_fold(
            tmp_path, row, fold, one_region(**dict.fromkeys(cases.replace("b", "") if row == lacking else cases, 0.5))
        )
        for row in plan.table.rows
        for fold, cases in enumerate(("ab", "cd"))
    ]
    found = write_results(plan, runs, {}, ensembles=True, region_rules=False)
    assert found.record is not None
    assert list(found.record["rows"]) == ["2-D", "2.5-D"]
    expected = f"**2-D + 2.5-D failed**: case b was evaluated by '{complete}', but not by '{lacking}' ("
    assert expected in (tmp_path / "folds.md").read_text(encoding="utf-8")
