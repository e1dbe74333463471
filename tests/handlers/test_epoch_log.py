# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import logging

import torch
from ignite.engine import Engine

from segan_monai.handlers import EpochLog


def run(folder, validator=None):
    values = iter([1.0, 3.0, 5.0, 9.0])
    engine = Engine(
        lambda engine, batch: {"terms": {"critic_l1": torch.tensor(next(values)), "dice": torch.tensor(2.0)}}
    )
    EpochLog(str(folder), validator).attach(engine)
    engine.run([0, 1], max_epochs=2)
    return engine


def test_terms_are_averaged_over_the_epoch_by_name(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="segan_monai")
    engine = run(tmp_path)
    assert engine.state.metrics == {"critic_l1": 7.0, "dice": 2.0}
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  critic_l1 2  dice 2  ")
    with (tmp_path / "history.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    peaks = [float(r["value"]) for r in rows if r["name"] == "peak_memory_mib"]
    assert len(peaks) == 2
    assert 100 < peaks[0] <= peaks[1] < 100_000  # torch alone takes more than 100 MiB
    assert [(r["epoch"], r["name"], r["value"]) for r in rows if r["name"] != "peak_memory_mib"] == [
        ("1", "training/critic_l1", "2"),
        ("1", "training/dice", "2"),
        ("2", "training/critic_l1", "7"),
        ("2", "training/dice", "2"),
    ]


def test_a_term_that_has_ended_is_no_metric_any_more(tmp_path):
    terms = iter([{"warm_up": torch.tensor(1.0), "dice": torch.tensor(2.0)}, {"dice": torch.tensor(3.0)}])
    engine = Engine(lambda engine, batch: {"terms": next(terms)})
    EpochLog(tmp_path).attach(engine)
    engine.state.metrics["of_another_handler"] = 5.0
    engine.run([0], max_epochs=2)
    assert engine.state.metrics == {"of_another_handler": 5.0, "dice": 3.0}


def test_validation_is_named_in_the_epoch_it_belongs_to(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="segan_monai")
    validator = Engine(lambda engine, batch: None)
    validator.state.epoch, validator.state.best_metric, validator.state.best_metric_epoch = 2, 0.75, 2
    validator.state.metrics = {"mean_dice": torch.tensor(0.75), "dice": {"WT": 0.75}, "WT": 0.75}
    run(tmp_path, validator)
    lines = [record.message for record in caplog.records]
    assert "mean_dice" not in lines[0]
    assert "mean_dice 0.7500  WT 0.7500  best 0.7500 in epoch 2" in lines[1]


def test_the_players_parameters_are_counted_once_at_the_start(tmp_path):
    engine = Engine(lambda engine, batch: {"terms": {}})
    engine.network, engine.adversaries = torch.nn.Linear(3, 2), {"critic": torch.nn.Linear(3, 1, bias=False)}
    EpochLog(str(tmp_path)).attach(engine)
    engine.run([0], max_epochs=1)
    engine.run([0], max_epochs=2)
    with (tmp_path / "history.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["name"].startswith("parameters")]
    assert [(r["epoch"], r["name"], r["value"]) for r in rows] == [
        ("0", "parameters_network", "8"),
        ("0", "parameters_critic", "3"),
    ]


def test_terms_that_an_iteration_lacks_are_averaged_over_the_others(tmp_path):
    nan = float("nan")
    outputs = [{"a": 1.0, "b": nan}, {"a": 3.0, "b": 5.0, "c": 7.0}, {"a": 5.0, "b": nan, "d": nan}]
    engine = Engine(lambda engine, terms: {"terms": {name: torch.tensor(value) for name, value in terms.items()}})
    EpochLog(str(tmp_path)).attach(engine)
    engine.run(outputs)
    assert engine.state.metrics == {"a": 3.0, "b": 5.0, "c": 7.0}


def test_values_of_training_and_validation_are_told_apart_by_their_names(tmp_path):
    validator = Engine(lambda engine, batch: None)
    validator.state.epoch, validator.state.best_metric, validator.state.best_metric_epoch = 2, 0.5, 2
    validator.state.metrics = {"mean_dice": 0.5, "dice": 0.25}  # a region called as the loss term
    run(tmp_path, validator)
    with (tmp_path / "history.csv").open(encoding="utf-8") as stream:
        rows = {(row["epoch"], row["name"]): row["value"] for row in csv.DictReader(stream)}
    assert (rows["2", "training/dice"], rows["2", "validation/dice"]) == ("2", "0.25")
    assert ("1", "validation/dice") not in rows


def test_a_resumed_run_of_an_earlier_version_goes_on_with_names_of_today(tmp_path):
    file = tmp_path / "history.csv"
    earlier = ["0,0.000,parameters_network,8", "1,1.250,dice,0.10000001", "1,1.250,mean_dice,0.5", "1,1.250,WT,nan"]
    file.write_text("\n".join(["epoch,seconds,name,value", *earlier]) + "\n", encoding="utf-8")
    run(tmp_path)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[:5] == [
        "epoch,seconds,name,value",
        "0,0.000,parameters_network,8",
        "1,1.250,training/dice,0.10000001",
        "1,1.250,validation/mean_dice,0.5",
        "1,1.250,validation/WT,nan",
    ]
    assert [line.split(",")[2] for line in lines[5:7]] == ["training/critic_l1", "training/dice"]


def test_a_damaged_file_does_not_stop_the_training(tmp_path, caplog):
    (tmp_path / "history.csv").write_bytes(b"epoch,seconds,name,value\nx,1,dice,0.5\n")
    run(tmp_path)
    assert "history.csv cannot be read" in caplog.text
    assert b"\nx,1,dice,0.5\n1," in (tmp_path / "history.csv").read_bytes()
