# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A training of a sweep that ends before its last epoch, as a script in the place of the trainer."""

from __future__ import annotations

import json

import pytest

from segan_monai.sweep import Space, Sweep, training
from segan_monai.sweep.training import Training, TrainingKilledError

SPACE = Space({"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}})


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a trial whose training is a shell script."""

    def started(script, sweep=None):
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setattr(training.sys, "executable", str(program))
        sweep = sweep or Sweep(tmp_path / "bundle", tmp_path / "data", tmp_path, SPACE, epochs=2)
        return Training(sweep, "9f", {"learning_rate": 1e-3})

    return started


def read(trial):
    return json.loads((trial.folder / "trial.json").read_text(encoding="utf-8"))


def log_of(trial):
    trial.process.wait()
    return trial.log.read_text(encoding="utf-8").strip()


def test_a_training_that_fails_by_itself_is_recorded_and_ends(start):
    trial = start("echo started; echo no memory; exit 1")
    assert trial.next_validation() == {"done": True}
    message = f"{trial.folder}: the training ended with status 1: no memory. See {trial.log}."
    assert read(trial)["failed"] == message
    trial.stop()


def test_a_metric_that_the_training_does_not_write_is_recorded(start):
    trial = start("exit 0")
    assert trial.next_validation() == {"done": True}
    assert "the training ended without a value of validation/mean_dice in epoch 2" in read(trial)["failed"]


@pytest.mark.parametrize("how", ["kill -KILL $$", "exit 143"])
def test_a_training_that_is_killed_is_an_error_to_retry_and_keeps_its_start(start, how):
    first = start(how)
    with pytest.raises(TrainingKilledError, match=r"9f: the training ended with status (-9|143): it printed nothing"):
        first.next_validation()
    record = read(first)
    assert "failed" not in record
    assert read(start("exit 1"))["started"] == record["started"]


def test_relative_paths_are_those_of_the_folder_of_the_command(tmp_path, start, monkeypatch):
    folders = {name: tmp_path / name for name in ("typed", "ray")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.chdir(folders["typed"])
    sweep = Sweep(tmp_path / "bundle", tmp_path / "data", tmp_path, SPACE, epochs=2)
    monkeypatch.chdir(folders["ray"])
    assert log_of(start("pwd; exit 1", sweep)) == str(folders["typed"])
    folders["typed"].rmdir()  # as on a machine that does not share it
    assert log_of(start("pwd; exit 1", sweep)) == str(folders["ray"])
