# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from segan_monai.errors import ConfigError, DataError
from segan_monai.folds import configurations, run_fold
from segan_monai.metrics.summary import evaluation_table, write_evaluation
from segan_monai.reproduce import Plan, RunFailedError, load_tables, run_row
from segan_monai.reproduce.results import read_evaluation
from segan_monai.reproduce.runs import _labelled, train_row
from tests.forked import run_in_fork

pytestmark = pytest.mark.slow


@pytest.fixture
def plan(phantoms, tmp_path) -> Plan:
    small = {
        "base_channels": 4,
        "slice_size": [32, 32],
        "epochs": 2,
        "batch_size": 4,
        "slices_per_volume": 2,
        "folds": 2,
        "device": "cpu",
        "supervised_weight": 0.5,
    }
    data = tmp_path / "patients #2"  # runs get the folders' names through configs
    data.symlink_to(phantoms)
    own = tmp_path / "own.json"  # the evaluation has no trainer
    own.write_text('{"+train#handlers": [], "train#trainer#max_epochs": "@epochs"}', encoding="utf-8")
    return Plan(load_tables("segan-vs-unet")[0], data, tmp_path / "out #1", configs=[own], overrides=small)


@pytest.fixture
def forked(monkeypatch):
    """Trainings and evaluations are forked instead of started, each."""
    monkeypatch.setattr("segan_monai.reproduce.runs.subprocess.run", run_in_fork)


def test_a_row_is_trained_evaluated_and_kept(plan, forked):
    result = run_row(plan, "U-Net", 1)
    assert result["row"] == "U-Net"
    assert (result["seed"], result["epochs"], result["training_cases"]) == (1, 2, 2)
    assert list(result["regions"]) == ["whole_tumour", "tumour_core", "enhancing_tumour"]
    assert result["regions"]["whole_tumour"]["cases"] == 2
    assert result["train_seconds"] > 0
    assert result["peak_memory_mib"] > 50
    # base 4, 4 levels, 3 inputs, 4 classes; the critic has no part in it
    assert list(result["parameters"]) == ["network"]
    model = plan.output_dir / "unet" / "seed_1" / "training" / "model.pt"
    written = model.stat().st_mtime_ns
    assert run_row(plan, "U-Net", 1) == result
    assert model.stat().st_mtime_ns == written
    merged = json.loads((model.parent / "run.json").read_text(encoding="utf-8"))["config"]
    assert merged["supervised_weight"] == 1.0  # the row's own, not that of all rows

    # a training that was interrupted goes on from its last epoch
    (model.parent / "trained.txt").unlink()
    summary = model.parent.parent / "evaluation" / "summary.json"
    evaluated = summary.stat().st_mtime_ns
    again = run_row(plan, "U-Net", 1)
    assert summary.stat().st_mtime_ns > evaluated, "the weights are others"
    assert again["regions"] == result["regions"]
    assert "resumed from" in (model.parent / "log.txt").read_text(encoding="utf-8")

    with pytest.raises(ConfigError, match=r"seed_1 holds a run with other settings \(epochs differ\)"):
        run_row(replace(plan, overrides={**plan.overrides, "epochs": 5}), "U-Net", 1)
    settings = model.parent.parent / "settings.json"
    recorded = settings.read_text(encoding="utf-8")
    earlier = {key: value for key, value in json.loads(recorded).items() if key != "contents"}
    settings.write_text(json.dumps(earlier), encoding="utf-8")
    assert run_row(plan, "U-Net", 1) == again, "records of earlier versions have no contents"
    settings.write_text(recorded, encoding="utf-8")
    plan.configs[0].write_text('{"+train#handlers": [], "learning_rate": 0.5}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\(learning_rate in .*own\.json, train#trainer#max_epochs in .* differ\)"):
        run_row(plan, "U-Net", 1)


def test_the_patients_of_cases_come_from_the_split(tmp_path):
    """Results of earlier versions have none."""
    (tmp_path / "metrics.csv").write_text("case,region,dice\n01-1,a,0.5\n01-1,b,0.7\n01-2,a,0.1\n", encoding="utf-8")
    (tmp_path / "summary.json").write_text('{"regions": {}}', encoding="utf-8")
    split = {"training": ["x"], "validation": ["01-1", "01-2"], "subjects": {"01-1": "01", "01-2": "01"}}
    for given in (split, {key: split[key] for key in ("training", "validation")}):
        (tmp_path / "split.json").write_text(json.dumps(given), encoding="utf-8")
        found = read_evaluation(tmp_path, tmp_path)
        assert found["dice_of_cases"] == {"01-1": pytest.approx(0.6), "01-2": 0.1}
        assert found["patient_of_cases"] == given.get("subjects", {})
    (tmp_path / "split.json").write_text('{"training": ["x"]', encoding="utf-8")
    with pytest.raises(DataError, match=r"split\.json is not valid JSON .* Delete its folder: the same command then"):
        read_evaluation(tmp_path, tmp_path)
    (tmp_path / "split.json").write_text('{"validation": []}', encoding="utf-8")
    with pytest.raises(DataError, match=r"split\.json .* it has no 'training'; expected a list .* Delete its folder"):
        read_evaluation(tmp_path, tmp_path)


def test_equal_time_sets_the_epochs(plan, forked):
    overrides = {key: value for key, value in plan.overrides.items() if key != "epochs"}
    run = run_row(replace(plan, overrides=overrides, train_seconds=1.0), "SegAN", 0)
    found = json.loads((plan.output_dir / "s3_3c" / "epochs.json").read_text(encoding="utf-8"))
    assert found["epochs"] == max(1, round(1.0 / found["seconds_an_epoch"]))
    assert run["epochs"] == found["epochs"]
    assert set(run["parameters"]) == {"network", "critic"}


def test_a_run_that_fails_says_why_and_where(plan, forked):
    broken = replace(plan, overrides={**plan.overrides, "folds": 99})
    with pytest.raises(
        RunFailedError, match=r"row 'SegAN', seed 0: training ended with status 1: error: .*99.*training.log"
    ):
        run_row(broken, "SegAN", 0)


@pytest.fixture
def pretended(monkeypatch):
    """Runs that write small results instead of computing them; case d cannot be read until ``damaged`` is cleared."""
    started, damaged = [], {"d": "d.nii.gz is damaged"}

    def run(plan, row, run_id, output_dir, settings):
        started.append(output_dir.name)
        output_dir.mkdir(parents=True, exist_ok=True)
        output_dir.with_suffix(".json").write_text("{}", encoding="utf-8")
        if run_id == "training":
            seconds = plan.overrides.get("batch_size", 4)
            epochs = range(1, settings.get("epochs", 1) + 1)
            lines = [
                f"{epoch},{seconds},{name},1" for epoch in epochs for name in ("peak_memory_mib", "parameters_network")
            ]
            (output_dir / "history.csv").write_text("\n".join(["epoch,seconds,name,value", *lines]), encoding="utf-8")
            split = {"training": ["a"], "validation": ["b", "c", "d"], "fold": 0}
            (output_dir / "split.json").write_text(json.dumps(split), encoding="utf-8")
            (output_dir / "model.pt").touch()
            return
        cases = [case for case in "bcd" if case not in damaged]
        measures = dict.fromkeys(("dice", "iou", "precision", "sensitivity", "hd95_mm", "assd_mm"), 0.9)
        rows = [
            {"case": case, "region": "anterior", "reference_ml": 1, "prediction_ml": 1, **measures} for case in cases
        ]
        write_evaluation(evaluation_table(rows), output_dir, {"anterior": [1]}, not_evaluated=damaged)
        if damaged:
            raise RunFailedError(f"{output_dir.name} ended with status 1")

    monkeypatch.setattr("segan_monai.reproduce.runs._run", run)
    return started, damaged


@pytest.mark.parametrize("command", ["reproduce", "folds"])
def test_an_evaluation_that_lost_cases_is_repeated(tmp_path, pretended, command):
    started, damaged = pretended
    table = load_tables("segan-components", "hippocampus_mri_segan_segmentation")[0]
    table = configurations("hippocampus", ["S3-3C="]) if command == "folds" else table
    plan = Plan(table, tmp_path / "data", tmp_path / "out")

    def evaluated():
        started.clear()
        if command == "reproduce":
            return set(run_row(plan, "S3-3C", 0)["dice_of_cases"])
        return set(pd.read_csv(run_fold(plan, "S3-3C", 0, 0).evaluation / "metrics.csv")["case"])

    for runs in (2, 1):  # the second command trains no more
        with pytest.raises(RunFailedError, match="ended with status 1"):
            evaluated()
        assert len(started) == runs, "an evaluation of two of three cases is not finished"
    damaged.clear()
    assert evaluated() == {"b", "c", "d"}
    assert evaluated() == {"b", "c", "d"}
    assert started == []


def test_a_pool_that_lost_cases_is_evaluated_again(tmp_path, pretended, monkeypatch):
    """The label of a case that could not be read would never be chosen."""
    started, damaged = pretended
    plan = Plan(load_tables("active-learning")[0], tmp_path / "data", tmp_path / "out")
    monkeypatch.setattr("segan_monai.reproduce.runs.regions_in_all", lambda files, names: set())
    monkeypatch.setattr("segan_monai.reproduce.runs.choose_cases", lambda *arguments: ["a", "b"])
    for _ in range(2):
        with pytest.raises(RunFailedError, match="pool ended with status 1"):
            _labelled(plan, "lowest quality", 0, 0, (10, 1))
    damaged.clear()
    for _ in range(2):
        assert _labelled(plan, "lowest quality", 0, 0, (10, 1)) == ["a", "b"]
    assert started == ["training", "pool", "pool", "pool"]


def test_the_epochs_are_those_measured_with_the_same_settings(tmp_path, pretended):
    """An epoch takes as many seconds here as a batch has slices."""
    started, _ = pretended
    plan = Plan(load_tables("segan-components", "hippocampus_mri_segan_segmentation")[0], tmp_path, tmp_path / "out")

    def epochs(batch_size, seed, train_seconds=80.0):
        started.clear()
        overrides = {"batch_size": batch_size}
        _, settings = train_row(
            replace(plan, overrides=overrides, train_seconds=train_seconds), "S3-3C", seed, labels=(5, seed)
        )
        return settings["epochs"], "calibration" in started

    assert epochs(4, seed=0) == (20, True)
    assert epochs(4, seed=1) == (20, False)
    with pytest.raises(
        ConfigError, match=r"seed_0_labels_5_draw_0 holds a run with other settings \(batch_size differ\)"
    ):
        epochs(16, seed=0)
    assert started == [], "nothing is measured for a run that is refused"
    assert epochs(16, seed=2) == (5, True)
    assert epochs(4, seed=1) == (20, False), "runs that were started go on"
    assert epochs(16, seed=3, train_seconds=160.0) == (10, True)
    assert epochs(16, seed=2) == (5, False)


@pytest.mark.parametrize("seed_of_run", [None, 0, 1])
def test_measured_epochs_of_earlier_versions_are_those_of_their_runs(tmp_path, pretended, seed_of_run):
    """They have no settings; without a run that shows these, they are measured again."""
    started, _ = pretended
    table = load_tables("segan-components", "hippocampus_mri_segan_segmentation")[0]
    plan = Plan(table, tmp_path, tmp_path / "out", overrides={"batch_size": 4}, train_seconds=80.0)
    folder, _ = train_row(plan, "S3-3C", 0)
    file = folder.parent / "epochs.json"
    earlier = {**json.loads(file.read_text(encoding="utf-8")), "epochs": 21}
    del earlier["record"]
    file.write_text(json.dumps(earlier), encoding="utf-8")
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    if seed_of_run is not None:
        settings["settings"] |= {"epochs": 21, "val_interval": 21, "seed": seed_of_run}
        folder = folder.with_name(f"seed_{seed_of_run}")
        folder.mkdir()
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    started.clear()
    assert train_row(plan, "S3-3C", 0)[1]["epochs"] == (20 if seed_of_run is None else 21)
    assert started == (["calibration", "training"] if seed_of_run is None else ["training"])
