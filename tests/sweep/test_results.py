# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Table and page of a sweep, from the folders of its trials."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from segan_monai.errors import DataError
from segan_monai.sweep import Space, Sweep, read_trials, write_results, write_sweep_page
from segan_monai.sweep.plots import in_order_of_starts

METRIC = "validation/mean_dice"
SPACE = Space({"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "slice_axis": {"choices": [2, [2, 1, 0]]}})


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path / "my_bundle", tmp_path / "data", tmp_path, SPACE, epochs=4)


def write_trial(sweep, name, rate, axis, dice, ended=True, **more):
    """A trial with a validation every second epoch."""
    drawn = {"learning_rate": rate, "slice_axis": axis if axis == 2 else json.dumps(axis)}
    training = sweep.folder(name) / "training"
    training.mkdir(parents=True)
    record = {"drawn": drawn, "settings": {"learning_rate": rate, "slice_axis": axis}, "ended": ended, **more}
    (sweep.folder(name) / "trial.json").write_text(json.dumps(record), encoding="utf-8")
    lines = ["epoch,seconds,name,value"]
    for number, value in enumerate(dice, 1):
        lines += [f"{2 * number - 1},1.5,training/l1,0.3", f"{2 * number},1.5,training/l1,0.2"]
        lines += [f"{2 * number},1.5,{METRIC},{value}"]
    (training / "history.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def trials(sweep):
    write_trial(sweep, "a", 1e-4, 2, [0.5, 0.4])
    write_trial(sweep, "b", 1e-3, [2, 1, 0], [0.6, 0.8])
    write_trial(sweep, "c", 1e-2, 2, [0.1])
    write_trial(sweep, "d", 3e-3, 2, [0.3], ended=False)
    write_trial(sweep, "e", 2e-3, 2, ["nan"])
    return read_trials(sweep.output_dir, METRIC, sweep.epochs)


def test_trials_are_ordered_by_their_best_validation(trials):
    found = [(trial.name, trial.value, trial.best_epoch, trial.epochs, trial.state) for trial in trials]
    assert found == [
        ("b", 0.8, 4, 4, "finished"),
        ("a", 0.5, 2, 4, "finished"),
        ("d", 0.3, 2, 2, "unfinished"),
        ("c", 0.1, 2, 2, "stopped early"),
        ("e", None, None, 2, "stopped early"),
    ]
    assert trials[0].seconds == 6.0


def test_progress_is_in_the_order_of_starts_and_not_of_names(sweep):
    for name, day, dice in (("f1", 1, 0.2), ("0a", 2, 0.4), ("93", 3, 0.3)):
        write_trial(sweep, name, 1e-3, 2, [dice], started=f"2026-11-0{day}T10:00:00.000+00:00")
    found = read_trials(sweep.output_dir, METRIC, 4)
    assert [trial.name for trial in found] == ["0a", "93", "f1"], "the best first"
    assert [trial.name for trial in in_order_of_starts(found)] == ["f1", "0a", "93"]
    write_results(sweep.output_dir, found, METRIC)
    assert pd.read_csv(sweep.output_dir / "sweep.csv").loc[0, "started"] == "2026-11-02T10:00:00.000+00:00"


def test_a_training_that_failed_is_named_with_its_message(sweep, trials):
    write_trial(sweep, "f", 5e-3, 2, [0.7], failed="trials/f: the training ended with status 1: <no memory>.")
    found = read_trials(sweep.output_dir, METRIC, 4)
    assert (found[4].name, found[4].state, found[4].value) == ("f", "failed", 0.7)
    page = write_sweep_page(sweep, found).read_text(encoding="utf-8")
    assert "<td>failed: trials/f: the training ended with status 1: &lt;no memory&gt;.</td>" in page
    assert "1 failed" in page


def test_a_training_that_failed_is_not_the_best(sweep, trials):
    write_trial(sweep, "f", 1e-1, 2, [0.9], failed="the loss is NaN")
    found = read_trials(sweep.output_dir, METRIC, sweep.epochs)
    assert [trial.name for trial in found] == ["b", "a", "d", "c", "f", "e"]
    write_results(sweep.output_dir, found, METRIC)
    assert json.loads((sweep.output_dir / "best.json").read_text(encoding="utf-8"))["learning_rate"] == 1e-3


def test_smaller_may_be_better(sweep, trials):
    assert [trial.name for trial in read_trials(sweep.output_dir, METRIC, 4, largest=False)] == [
        "c",
        "d",
        "a",
        "b",
        "e",
    ]


def test_the_table_and_an_overlay_with_the_best_settings_are_written(sweep, trials):
    write_results(sweep.output_dir, trials, METRIC)
    table = pd.read_csv(sweep.output_dir / "sweep.csv")
    assert table["trial"].to_list() == list("badce")
    assert table.loc[0, ["learning_rate", "slice_axis"]].to_list() == [0.001, "[2, 1, 0]"]
    best = json.loads((sweep.output_dir / "best.json").read_text(encoding="utf-8"))
    assert best == {"learning_rate": 1e-3, "slice_axis": [2, 1, 0]}


def test_no_value_at_all_is_an_error(sweep):
    write_trial(sweep, "a", 1e-4, 2, ["nan"])
    found = read_trials(sweep.output_dir, METRIC, 4)
    with pytest.raises(DataError, match=r"no trial of .* has a value of validation/mean_dice\. See the files training"):
        write_results(sweep.output_dir, found, METRIC)
    write_trial(sweep, "b", 1e-4, 2, ["nan"], failed="b: no memory.")
    found = read_trials(sweep.output_dir, METRIC, 4)
    with pytest.raises(DataError, match=r"mean_dice\. b: no memory\. See .* are not repeated: correct the cause"):
        write_results(sweep.output_dir, found, METRIC)


def test_the_page_needs_nothing_else(sweep, trials):
    page = write_sweep_page(sweep, trials, "segan-monai sweep").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "2 finished, 1 unfinished, 2 stopped early" in page
    assert "<td>b</td><td>0.8000</td><td>0.001</td><td>[2, 1, 0]</td><td>4</td><td>4</td><td>finished</td>" in page
    assert "--accent: #0072b2" in page, "the report's style"
    assert page.count("<svg") >= 2


def test_importance_names_the_key_that_matters(sweep):
    pytest.importorskip("optuna", reason="Optuna: bash scripts/test_ray.sh")
    from segan_monai.sweep.page import importances

    for number in range(12):
        write_trial(sweep, f"{number:02}", 10 ** (-4 + number / 6), 2 if number % 2 else [2, 1, 0], [0.05 * number] * 2)
    shares = importances(sweep, read_trials(sweep.output_dir, METRIC, 4))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["learning_rate"] > 0.8
