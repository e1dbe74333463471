# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""All handlers of a training: their order, what the checkpoint holds, and one process of several."""

from __future__ import annotations

import csv

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segan_monai.errors import ConfigError
from segan_monai.handlers import TrainingHandlers

CPU = torch.device("cpu")


class Trainer(SupervisedTrainer):
    """Learns the number 1."""

    def _iteration(self, engine, batch):
        self.optimizer.zero_grad()
        loss = (self.network.weight - 1).square().sum()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach(), "terms": {"distance": loss.detach()}}


class Evaluator(SupervisedEvaluator):
    """Finds nothing by itself."""

    def _iteration(self, engine, batch):
        return {}


def make(folder, epochs=3, **settings):
    """A trainer with all handlers, and its learning-rate schedule."""
    network = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    validator = Evaluator(CPU, DataLoader(Dataset([{}])), network, decollate=False)

    @validator.on(Events.COMPLETED)
    def found():
        state, dice = validator.state, 1 / validator.state.epoch
        state.metrics = {"mean_dice": dice, "weight": float(network.weight.detach())}
        if dice > state.best_metric:
            state.best_metric, state.best_metric_epoch = dice, state.epoch

    handlers = TrainingHandlers(
        output_dir=folder / "run",
        ckpt_dir=folder / "models",
        network=network,
        objects={"optimizer": optimizer, "lr_scheduler": schedule},
        lr_schedulers=[schedule],
        validator=validator,
        regions=["all"],
        modalities=["T1"],
        **{"live_cases": 0, "val_interval": 2, **settings},
    )
    (folder / "run").mkdir(exist_ok=True)
    return Trainer(CPU, epochs, [0], network, optimizer, torch.nn.MSELoss(), train_handlers=[handlers], decollate=False)


def names_in(file):
    with file.open(encoding="utf-8") as stream:
        return {(int(row["epoch"]), row["name"]): float(row["value"]) for row in csv.DictReader(stream)}


def test_what_a_training_leaves(tmp_path):
    trainer = make(tmp_path)
    trainer.run()
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert list(last)[:3] == ["network", "optimizer", "lr_scheduler"]
    assert (last["epoch"], last["best_metric"], last["best_metric_epoch"]) == (3, 0.5, 2)
    assert last["lr_scheduler"]["last_epoch"] == 3, "the schedule moves on before it is saved"
    assert last["optimizer"]["param_groups"][0]["lr"] == 0.0625

    logged = names_in(tmp_path / "run" / "history.csv")
    assert [epoch for epoch, name in logged if name == "training/distance"] == [1, 2, 3]
    assert [epoch for epoch, name in logged if name == "validation/mean_dice"] == [2, 3]
    assert logged[3, "validation/weight"] == pytest.approx(float(last["network"]["weight"]), rel=1e-6)
    best = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert float(best["weight"]) == pytest.approx(logged[2, "validation/weight"], rel=1e-6)

    (events,) = (tmp_path / "run").glob("events.out.tfevents.*")
    shown = EventAccumulator(str(events)).Reload()
    assert [value.value for value in shown.Scalars("learning_rate/optimizer")] == [0.5, 0.25, 0.125]
    assert [value.step for value in shown.Scalars("validation/mean_dice")] == [2, 3]
    assert "mean Dice 0.500 in epoch 2" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, epochs, resume in ((whole, 3, False), (parts, 2, False), (parts, 3, True)):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        make(folder, epochs, resume=resume, val_interval=1).run()
    assert (whole / "run" / "last.pt").read_bytes() == (parts / "run" / "last.pt").read_bytes()
    assert (whole / "models" / "model.pt").read_bytes() == (parts / "models" / "model.pt").read_bytes()


def test_of_several_processes_one_alone_shows_and_tracks(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    make(tmp_path, mlflow="nonsense://x").run()
    assert not list((tmp_path / "run").glob("events*"))


def test_mlflow_is_asked_before_the_training(tmp_path):
    with pytest.raises(ConfigError, match=r"--mlflow nonsense://x cannot be used"):
        make(tmp_path, mlflow="nonsense://x")
    assert not list((tmp_path / "run").glob("*"))
