# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Faults in the middle of a training: what is left, and what a resumed run makes of it."""

from __future__ import annotations

import csv
import logging
import os
import random
import shutil
import signal

import pytest
import torch
from ignite.engine import Events

from segan_monai.errors import DataError, causes
from segan_monai.run import what_to_do
from tests.bundles.workflow import HIPPOCAMPUS, make_workflow
from tests.comparing import assert_same
from tests.faults.processes import SMALL_TRAINING, Command

pytestmark = pytest.mark.slow

ITERATIONS = 6  # an epoch: of eight cases in four folds six are for training, one a batch


def train(folder, data, handlers=(), file_size_limit=None, run_id="training", **overrides):
    folder.mkdir(exist_ok=True)
    settings = {"dataset_dir": data, "output_dir": folder / "run", "ckpt_dir": folder / "models"}
    return Command(run_id, folder, handlers, file_size_limit, **{**settings, **overrides})


def send(iteration, *signals, **settings):
    return {"_target_": "tests.faults.hooks.SignalAt", "iteration": iteration, "signals": signals, **settings}


def checkpoint(folder):
    return torch.load(folder / "run" / "last.pt", weights_only=True)


def validations(folder):
    """Key metric of each epoch that was validated."""
    with (folder / "run" / "history.csv").open(encoding="utf-8") as stream:
        return {row["epoch"]: row["value"] for row in csv.DictReader(stream) if row["name"] == "validation/mean_dice"}


@pytest.fixture(scope="module")
def whole(hippocampi, tmp_path_factory):
    """Trainings that nothing interrupted, by number of loader processes."""
    folders = {}
    for workers in (0, 2):
        folders[workers] = tmp_path_factory.mktemp("whole")
        run = train(folders[workers], hippocampi, num_workers=workers)
        assert run.wait() == 0, run.text
    return folders


def test_killed_three_times_and_resumed_the_result_is_the_very_same(hippocampi, whole, tmp_path):
    killed_at = random.Random(0).randrange(ITERATIONS + 1, 2 * ITERATIONS)
    run = train(tmp_path, hippocampi, [send(killed_at, "SIGKILL")])
    assert run.wait() == -signal.SIGKILL
    assert checkpoint(tmp_path)["epoch"] == 1

    # killed while the checkpoint of epoch 2 is being written
    before = (tmp_path / "run" / "last.pt").read_bytes()
    pipe = tmp_path / "run" / ".last.part.pt"
    os.mkfifo(pipe)
    train(tmp_path, hippocampi, resume=True).kill_while_it_writes(pipe)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before

    # SIGTERM in the middle of epoch 3
    run = train(tmp_path, hippocampi, [send(2 * ITERATIONS + 3, "SIGTERM")], resume=True)
    assert run.wait() == 128 + signal.SIGTERM, run.text
    assert "SIGTERM: stopping after this iteration, with a checkpoint; repeat to stop immediately" in run.text
    assert "stopped in epoch 3" in run.text
    assert "--resume true resumes" in run.text
    assert (checkpoint(tmp_path)["epoch"], checkpoint(tmp_path)["batches_done"]) == (2, 3)

    run = train(tmp_path, hippocampi, resume=True)
    assert run.wait() == 0, run.text
    assert_same(checkpoint(tmp_path), checkpoint(whole[0]))
    for file in ("run/model.pt", "models/model.pt"):
        assert_same(torch.load(tmp_path / file, weights_only=True), torch.load(whole[0] / file, weights_only=True))
    # validated in the same epochs with the same result
    assert validations(tmp_path) == validations(whole[0])
    assert list(validations(tmp_path)) == ["2", "3"]


def test_ctrl_c_reaches_the_loader_processes_too_and_all_is_kept(hippocampi, whole, tmp_path):
    interrupt = send(ITERATIONS + 2, "SIGINT", to="group")
    run = train(tmp_path, hippocampi, [interrupt], num_workers=2)
    assert run.wait() == 128 + signal.SIGINT, run.text
    assert run.text.count("repeat to stop immediately") == 1
    assert (checkpoint(tmp_path)["epoch"], checkpoint(tmp_path)["batches_done"]) == (1, 2)
    run = train(tmp_path, hippocampi, resume=True, num_workers=2)
    assert run.wait() == 0, run.text
    assert_same(checkpoint(tmp_path), checkpoint(whole[2]))


def test_one_more_signal_stops_at_once_and_leaves_the_last_checkpoint(hippocampi, tmp_path):
    run = train(tmp_path, hippocampi, [send(ITERATIONS + 2, "SIGTERM", "SIGINT")])
    assert run.wait() == -signal.SIGINT
    assert "batches_done" not in checkpoint(tmp_path)
    assert checkpoint(tmp_path)["epoch"] == 1


def test_a_full_disk_is_named_and_the_earlier_checkpoint_is_whole(hippocampi, tmp_path):
    run = train(tmp_path, hippocampi, epochs=1)
    assert run.wait() == 0, run.text
    before = (tmp_path / "run" / "last.pt").read_bytes()
    run = train(tmp_path, hippocampi, epochs=2, resume=True, file_size_limit=len(before) - 1000)
    assert run.wait() == 1
    assert run.last_line.startswith(f"error: {tmp_path}/run/last.pt cannot be written (File too large)")
    assert "Free space on the disk" in run.last_line
    assert "training with --resume true" in run.last_line
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))


@pytest.fixture
def workflow(hippocampi, tmp_path, process_as_before):
    """A training of two epochs in this process, on a copy of the data; nothing is kept in memory."""
    data = tmp_path / "data"
    shutil.copytree(hippocampi, data)
    output = {"output_dir": str(tmp_path / "run"), "ckpt_dir": str(tmp_path / "models")}

    def make(**overrides):
        settings = {**SMALL_TRAINING, "epochs": 2, "dataset_dir": str(data), **output, "cache_rate": 0.0, **overrides}
        run = make_workflow(HIPPOCAMPUS, "training", **settings)
        run.initialize()
        return run

    return make


def damage(workflow, tmp_path):
    """Truncate a file of the training set when the second epoch begins; returns the case."""
    case = workflow.parser.get_parsed_content("split")["training"][2]["case"]
    file = tmp_path / "data" / "imagesTr" / f"{case}.nii.gz"
    content = file.read_bytes()
    workflow.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), lambda: file.write_bytes(content[:500]))
    return case


def test_a_case_that_turns_unreadable_stops_the_training_with_its_name(workflow, tmp_path):
    run = workflow()
    case = damage(run, tmp_path)
    with pytest.raises(Exception) as caught:
        run.run()
    (error,) = (error for error in causes(caught.value) if isinstance(error, DataError))
    assert f"imagesTr/{case}.nii.gz cannot be read" in str(error)
    assert what_to_do(caught.value) == str(error)
    assert checkpoint(tmp_path)["epoch"] == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_case_that_turns_unreadable_is_skipped_and_reported_if_asked(workflow, tmp_path, caplog, num_workers):
    run = workflow(skip_unreadable_cases=True, num_workers=num_workers)
    case = damage(run, tmp_path)
    with caplog.at_level(logging.WARNING):
        run.run()
    assert (run.trainer.state.epoch, run.trainer.state.iteration) == (2, 2 * ITERATIONS)
    with (tmp_path / "run" / "skipped_cases.csv").open(encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert row["case"] == case
    assert f"{case}.nii.gz cannot be read" in row["error"]


def test_a_killed_loader_process_is_explained(hippocampi, tmp_path):
    run = train(tmp_path, hippocampi, [send(ITERATIONS + 1, "SIGKILL", to="loader")], num_workers=2)
    assert run.wait() == 1
    assert run.last_line.startswith("error: a data loader process was killed (")
    assert "Lower --num_workers" in run.last_line
    assert checkpoint(tmp_path)["epoch"] == 1


def test_a_loss_that_is_not_finite_names_term_batch_and_cases_and_keeps_the_checkpoint(workflow, tmp_path):
    run = workflow()
    trainer = run.trainer

    def poison(engine):
        engine.state.batch["image"][0, 0, 3, 3] = float("inf")
        engine.state.poisoned = engine.state.batch["case"][0]

    trainer.add_event_handler(Events.ITERATION_STARTED(once=ITERATIONS + 4), poison)
    with pytest.raises(Exception) as caught:
        run.run()
    text = what_to_do(caught.value)
    assert "loss term '" in text
    assert f"in epoch 2, iteration {ITERATIONS + 4}, on a batch of {trainer.state.poisoned};" in text
    assert checkpoint(tmp_path)["epoch"] == 1


def test_a_validation_that_is_not_finite_stops_before_anything_is_written(workflow, tmp_path):
    run = workflow(val_interval=1, critic_start=1)
    model = tmp_path / "models" / "model.pt"
    kept = {}

    def spoil(module, inputs, output):
        return output if module.training else output * float("nan")

    def second_epoch():
        kept["model"] = model.read_bytes()
        run.parser.get_parsed_content("network_def").register_forward_hook(spoil)

    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), second_epoch)
    with pytest.raises(Exception) as caught:
        run.run()
    text = what_to_do(caught.value)
    assert text.startswith("validation after epoch 2: case case_")
    assert "values of the network's output are NaN or infinite" in text
    assert "--resume true resumes from them" in text
    assert checkpoint(tmp_path)["epoch"] == 1
    assert model.read_bytes() == kept["model"]


def test_a_second_run_in_the_folder_is_refused_until_the_first_ends_or_is_killed(hippocampi, tmp_path):
    os.mkfifo(tmp_path / "go")
    wait = {"_target_": "tests.faults.hooks.WaitFor", "pipe": str(tmp_path / "go"), "iteration": ITERATIONS + 1}
    first = train(tmp_path, hippocampi, [wait], num_workers=2)
    with first.waiting_for(tmp_path / "go"):
        before = {file: file.read_bytes() for file in (tmp_path / "run").glob("*.*")}
        second = train(tmp_path, hippocampi)
        assert second.wait() == 1
        expected = f"error: {tmp_path}/run is in use by process {first.process.pid} on "
        assert second.last_line.startswith(expected)
        assert second.last_line.endswith("Wait until it ends, stop it, or choose another output folder.")
        assert {file: file.read_bytes() for file in (tmp_path / "run").glob("*.*")} == before
        first.kill()
    third = train(tmp_path, hippocampi, resume=True)
    assert third.wait() == 0, third.text
    assert sorted(validations(tmp_path)) == ["2", "3"]


def files_of(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        ({"run_id": "train"}, "error: 'train' is a part of the config that does not run anything. Did you mean train"),
        ({"epochs": "many"}, "error: --epochs many: expected a whole number"),
        ({"fold": 9}, "error: folds=4, fold=9: folds must be at least 2, and fold from 0 to folds - 1"),
        ({"dataset_dir": "elsewhere"}, "error: dataset_dir elsewhere ("),
        ({"dataset_dir": "elsewhere", "check": False}, "there is no such file or folder. Set --dataset_dir"),
        ({"dataset_dir": "elsewhere", "resume": True}, "there is no such file or folder. Set --dataset_dir"),
        ({"base_channels": 2, "resume": True}, "last.pt: base_channels is 2, but 4 in the checkpoint"),
    ],
    ids=str,
)
def test_a_mistaken_start_changes_nothing_in_the_folder_of_a_finished_run(mistake, text, hippocampi, whole, tmp_path):
    shutil.copytree(whole[0] / "run", tmp_path / "run")
    before = files_of(tmp_path / "run")
    assert {"last.pt", "model.pt", "history.csv", "split.json", "run.json", "report.html"} <= before.keys()
    run = train(tmp_path, hippocampi, **mistake)
    assert run.wait() == 1, run.text
    assert text in run.text
    assert files_of(tmp_path / "run") == before


def test_the_next_training_in_a_folder_moves_the_finished_run_which_can_then_be_resumed(hippocampi, whole, tmp_path):
    shutil.copytree(whole[0] / "run", tmp_path / "run")
    before = files_of(tmp_path / "run")
    run = train(tmp_path, hippocampi, epochs=1, ckpt_dir=tmp_path / "run")
    assert run.wait() == 0, run.text
    moved = files_of(tmp_path / "run" / "previous_1")
    assert moved == {name: before[name] for name in moved}
    assert {"last.pt", "model.pt", "history.csv", "split.json", "run.json", "log.txt", "report.html"} <= moved.keys()
    assert checkpoint(tmp_path)["epoch"] == 1
    weights = f"weights: {tmp_path}/run/model.pt (to evaluate or apply them, pass --ckpt_dir {tmp_path}/run)"
    assert weights in run.text

    (tmp_path / "run" / "last.pt").unlink()
    run = train(tmp_path, hippocampi, epochs=4, resume=True)
    assert run.wait() == 1
    previous = f"{tmp_path}/run/previous_1"
    assert f"{previous} holds an earlier run of this folder. To resume that run, pass --output_dir {previous}" in (
        run.last_line
    )
    run = train(tmp_path, hippocampi, epochs=4, resume=True, output_dir=previous)
    assert run.wait() == 0, run.text
    assert torch.load(tmp_path / "run" / "previous_1" / "last.pt", weights_only=True)["epoch"] == 4
