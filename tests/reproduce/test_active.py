# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Simulated active learning: whose label comes next."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from segan_monai.cli.main import app
from segan_monai.errors import ConfigError, DataError
from segan_monai.quality.signals import EMPTY_LOG_ML
from segan_monai.reproduce import Plan, load_tables, run_row, with_labels
from segan_monai.reproduce.active import choose_cases, lowest, stage_before
from segan_monai.reproduce.labels import regions_in_all
from segan_monai.reproduce.plan import run_folder
from segan_monai.reproduce.runs import _labelled
from tests.forked import run_in_fork

TABLE = load_tables("active-learning")[0]


def signals(left, right, agreement=None):
    of_region = [{"soft_dice": value, "log_ml": 3.0} for value in (left, right)]
    if agreement is not None:
        of_region[1]["agreement_axes"] = agreement
    return dict(zip(("left", "right"), of_region, strict=True))


def test_the_lowest_mean_over_regions_comes_first():
    cases = {"a": signals(0.9, 0.9), "b": signals(0.2, 0.9), "c": signals(0.8, 0.8, 0.1), "d": signals(0.9, 0.2)}
    assert lowest(cases, 3) == ["b", "d", "c"]  # .55, .55, (.8 + .45) / 2


def test_a_region_that_is_missed_altogether_comes_first():
    cases = {"a": signals(0.9, 0.9), "b": signals(0.5, 0.6), "c": signals(0.95, 1.0)}
    cases["c"]["right"]["log_ml"] = EMPTY_LOG_ML
    assert lowest(cases, 3) == ["b", "a", "c"]  # an empty mask looks certain
    assert lowest(cases, 3, {"right"}) == ["c", "b", "a"]  # .475, .55, .9
    assert lowest(cases, 3, {"left"}) == ["b", "a", "c"], "some labelled cases lack it too"


def test_regions_that_all_labelled_cases_have(tmp_path):
    cases = {"both": [1, 2, 9], "left": [1, 0, 9], "left alone": [1, 0, 0], "unlabelled": [0, 0, 0]}
    given = [f"{{'case': '{name}', 'label': torch.tensor([[{values}]])}}" for name, values in cases.items()]
    given[2] = given[2].replace("}", ", 'labelled_regions': ['left']}")
    config = {
        "cases": f"$[{', '.join(given)}]",
        "label_regions": {"left": [1], "right": [2], "absent": [3]},
        "ignore_label": 9,
        "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "Identityd", "keys": "label"}]},
    }
    (tmp_path / "evaluate.json").write_text(json.dumps(config), encoding="utf-8")
    files = [str(tmp_path / "evaluate.json")]
    assert regions_in_all(files, ["both"]) == {"left", "right"}
    assert regions_in_all(files, ["both", "left"]) == {"left"}
    assert regions_in_all(files, ["both", "left alone"]) == {"left", "right"}, "it is labelled for the left one alone"
    assert regions_in_all(files, ["other"]) == set()


@pytest.fixture
def stage(tmp_path):
    """Training with two labelled cases, and the evaluation of four others."""
    for name in ("training", "pool"):
        (tmp_path / name).mkdir()
    split = {"training": ["x", "b"], "validation": ["v"], "unlabeled": ["a", "c", "d", "e"]}
    (tmp_path / "training" / "split.json").write_text(json.dumps(split), encoding="utf-8")
    dice = {"a": 0.9, "c": 0.1, "d": 0.4, "e": 0.6}
    content = {"cases": {name: {"regions": signals(value, value)} for name, value in dice.items()}}
    (tmp_path / "pool" / "signals.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path / "training", tmp_path / "pool"


def test_labelled_cases_stay_and_the_worst_join_them(stage):
    assert choose_cases(*stage, 4) == ["b", "c", "d", "x"]
    file = stage[1] / "signals.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["cases"]["a"]["regions"]["left"] = {"soft_dice": 1.0, "log_ml": EMPTY_LOG_ML}
    file.write_text(json.dumps(content), encoding="utf-8")
    assert choose_cases(*stage, 5, {"left"}) == ["a", "b", "c", "d", "x"]  # (0 + .9) / 2 before .6
    with pytest.raises(ConfigError, match=r"7 labelled cases, but the training set has 6\. Use smaller --labels"):
        choose_cases(*stage, 7)
    (stage[1] / "signals.json").unlink()
    with pytest.raises(DataError, match=r"pool has no signals\.json, so its bundle gives no signals of quality"):
        choose_cases(*stage, 4)


def test_stages_follow_the_numbers():
    labels = with_labels(TABLE, [20, 5, 10]).labels
    assert [stage_before(labels, number) for number in (5, 10, 20)] == [None, 5, 10]


def test_rows_share_the_first_draw_alone(tmp_path):
    plan = Plan(TABLE, tmp_path, tmp_path / "out")
    folders = {
        number: {run_folder(plan, row, 0, 0, (number, 1)).name for row in ("random order", "lowest quality")}
        for number in TABLE.labels.numbers
    }
    assert folders[5] == {"seed_0_fold_0_labels_5_draw_1"}
    assert folders[10] == {"seed_0_fold_0_labels_10_draw_1", "seed_0_fold_0_labels_10_draw_1_chosen_after_5"}
    assert len(folders[20]) == 2


def test_parts_and_clusters_cannot_divide_it(tmp_path):
    command = ["reproduce", "active-learning", "--dataset-dir", str(tmp_path), "--output-dir", str(tmp_path / "out")]
    for option in (("--part", "1/2"), ("--ray", "local")):
        error = CliRunner().invoke(app, [*command, *option]).exception
        assert f"{option[0]} cannot divide 'active-learning': its later runs need those before" in str(error)


def test_the_cases_of_a_run_that_was_started_are_not_chosen_again(tmp_path, monkeypatch):
    """Neither are label maps read, nor the runs before it."""
    plan = Plan(TABLE, tmp_path, tmp_path / "out")
    folder = run_folder(plan, "lowest quality", 0, 0, (10, 1))
    folder.mkdir(parents=True)
    record = {"settings": {"labeled_cases": ["b", "x"]}}
    (folder / "settings.json").write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setattr("segan_monai.reproduce.runs.train_row", None)
    monkeypatch.setattr("segan_monai.reproduce.runs.regions_in_all", None)
    assert _labelled(plan, "lowest quality", 0, 0, (10, 1)) == ["b", "x"]
    assert _labelled(plan, "random order", 0, 0, (10, 1)) == 10


@pytest.mark.slow
def test_the_network_of_fewer_labels_chooses_the_next_ones(hippocampi, tmp_path, monkeypatch):
    monkeypatch.setattr("segan_monai.reproduce.runs.subprocess.run", run_in_fork)
    small = {"base_channels": 4, "epochs": 1, "batch_size": 4, "slices_per_volume": 2, "slice_axis": 2, "folds": 2}
    plan = Plan(with_labels(TABLE, [1, 2], [0]), hippocampi, tmp_path / "out", overrides={**small, "device": "cpu"})
    result = run_row(plan, "lowest quality", 0, 0, (2, 0))
    assert (result["labels"], result["draw"], result["training_cases"]) == (2, 0, 2)
    first = plan.output_dir / "few_labels" / "seed_0_fold_0_labels_1_draw_0"
    chosen = first.with_name("seed_0_fold_0_labels_2_draw_0_chosen_after_1")
    (start,), names = (
        json.loads((run / "training" / "split.json").read_text(encoding="utf-8"))["training"] for run in (first, chosen)
    )
    found = json.loads((first / "pool" / "signals.json").read_text(encoding="utf-8"))["cases"]
    assert start not in found, "cases with a label are no candidates"
    regions = {name: of["regions"] for name, of in found.items()}
    assert names == sorted([start, *lowest(regions, 1, {"anterior", "posterior"})])
    assert run_row(replace(plan), "lowest quality", 0, 0, (2, 0)) == result, "finished runs are kept"
