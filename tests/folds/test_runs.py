# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import pytest

from segan_monai.errors import DataError
from segan_monai.folds import check_complete, configurations, out_of_fold_scores, run_fold
from segan_monai.reproduce import Plan
from tests.forked import run_in_fork

SMALL = {
    "base_channels": 2,
    "num_levels": 3,
    "full_resolution_channels": 0,
    "slice_size": [16, 16],
    "epochs": 1,
    "val_interval": 1,
    "batch_size": 4,
    "slices_per_volume": 2,
    "folds": 2,
    "device": "cpu",
    "supervised_weight": 0.5,
}


@pytest.fixture
def forked(monkeypatch):
    """Trainings and evaluations are forked instead of started, each."""
    monkeypatch.setattr("segan_monai.reproduce.runs.subprocess.run", run_in_fork)


@pytest.mark.slow
def test_every_case_is_scored_by_the_fold_that_holds_it_out_and_finished_folds_are_kept(hippocampi, tmp_path, forked):
    plan = Plan(configurations("hippocampus", []), hippocampi, tmp_path / "out", overrides=SMALL)
    runs = [run_fold(plan, "bundle", 0, fold) for fold in (0, 1)]
    scores = out_of_fold_scores(runs)
    assert sorted(scores["case"]) == sorted(2 * [f"hippocampus_{index:03}" for index in range(4)])  # two regions
    for run in runs:
        split = json.loads((run.training / "split.json").read_text(encoding="utf-8"))
        assert set(scores.loc[scores["fold"] == run.fold, "case"]) == set(split["validation"])
    assert check_complete(runs) == []

    files = [
        folder / name for run in runs for folder, name in ((run.training, "model.pt"), (run.evaluation, "run.json"))
    ]
    written = [file.stat().st_mtime_ns for file in files]
    assert [run_fold(plan, "bundle", 0, fold) for fold in (0, 1)] == runs
    assert [file.stat().st_mtime_ns for file in files] == written

    # rules of an earlier choice are not applied to the cases that they were chosen on
    settings = runs[0].training / "model.json"
    record = json.loads(settings.read_text(encoding="utf-8"))
    record["settings"]["region_rules"] = {"anterior": {"smallest_voxels": 10**6}}
    settings.write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(runs[0].evaluation)
    run_fold(plan, "bundle", 0, 0)
    assert out_of_fold_scores(runs).equals(scores)


@pytest.mark.slow
def test_a_data_set_with_its_own_validation_cases_has_no_folds(hippocampi, tmp_path, forked):
    content = json.loads((hippocampi / "dataset.json").read_text(encoding="utf-8"))
    content["validation"] = content["training"][2:]
    content["training"] = content["training"][:2]
    (hippocampi / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    plan = Plan(configurations("hippocampus", []), hippocampi, tmp_path / "out", overrides=SMALL)
    with pytest.raises(DataError, match=r"names its own validation cases, which are held out whatever the fold is"):
        run_fold(plan, "bundle", 0, 1)
