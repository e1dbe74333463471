# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from types import SimpleNamespace

import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segan_monai.handlers import FinalValidationHandler, LiveView
from segan_monai.handlers.live_view import current_learning_rates, epoch_scalars, first_cases


def engine(epoch, **metrics):
    return SimpleNamespace(state=SimpleNamespace(epoch=epoch, metrics=metrics))


def test_scalars_have_the_validation_only_in_its_epoch():
    trainer, rates = engine(3, supervised=0.25), {"learning_rate/optimizer": 0.1}
    metrics = {"mean_dice": 0.5, "edema": 0.75, "dice": {"edema": 0.75}}
    assert epoch_scalars(trainer, engine(2, **metrics), rates) == {"training/supervised": 0.25, **rates}
    assert epoch_scalars(trainer, engine(3, **metrics), rates) == {
        "training/supervised": 0.25,
        "validation/mean_dice": 0.5,
        "validation/edema": 0.75,
        "learning_rate/optimizer": 0.1,
    }


def test_learning_rates_by_optimizer_and_group():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    trainer = SimpleNamespace(
        optimizer=torch.optim.SGD([{"params": weights[:1], "lr": 0.5}, {"params": weights[1:]}], lr=0.25),
        critic_optimizer=torch.optim.Adam(weights, lr=0.125),
        network=None,
    )
    assert current_learning_rates(trainer) == {
        "learning_rate/optimizer_0": 0.5,
        "learning_rate/optimizer_1": 0.25,
        "learning_rate/critic_optimizer": 0.125,
    }


def test_the_first_cases_of_each_domain_in_turn():
    assert first_cases([{"case": name} for name in "cab"], 2) == ["c", "a"]
    cases = [{"case": name, "domain": name[0]} for name in ("a1", "a2", "a3", "b1", "c1", "c2")]
    assert first_cases(cases, 4) == ["a1", "b1", "c1", "a2"]
    assert first_cases(cases, 0) == []
    assert len(first_cases(cases, 9)) == 6
    assert first_cases([{"image": "a.nii.gz"}], 1) == []


def run(folder, labels=True, most_cases=1, names="xy"):
    """Two epochs of a trainer that learns nothing, validated in each."""
    ones = MetaTensor(torch.ones(1, 8, 8, 3), meta={"filename_or_obj": "a/study_7.nii.gz"})
    volumes = dict.fromkeys(["image", "label"] if labels else ["image"], ones)
    dataset = Dataset([{"case": name, **volumes} if name else volumes for name in names])
    validator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=1),
        network=torch.nn.Identity(),
    )
    trainer = Engine(lambda engine, batch: engine.state.metrics.update(term=float(engine.state.epoch)))
    trainer.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    trainer.network = validator.network
    FinalValidationHandler(1, validator).attach(trainer)
    LiveView(str(folder), validator, ["all"], ["T1"], most_cases).attach(trainer)
    # a schedule that has changed the rate before the epoch is written
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: trainer.optimizer.param_groups[0].update(lr=0.0))
    trainer.run([0], max_epochs=2)
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def test_what_is_written(tmp_path):
    events = run(tmp_path)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    assert [(e.step, e.value) for e in events.Scalars("training/term")] == [(1, 1.0), (2, 2.0)]
    assert [e.value for e in events.Scalars("learning_rate/optimizer")] == [1.0, 0.0], "the epoch's own"
    assert events.Tags()["images"] == ["slices/x"]
    assert [e.step for e in events.Images("slices/x")] == [1, 2]
    unnamed = run(tmp_path / "unnamed", names=["", ""])
    assert unnamed.Tags()["images"] == ["slices/study_7"], "by its file"
    assert [e.step for e in unnamed.Images("slices/study_7")] == [1, 2]
    assert run(tmp_path / "none", most_cases=0).Tags()["images"] == []


def test_a_picture_that_cannot_be_drawn_costs_nothing_else(tmp_path, caplog):
    with caplog.at_level(logging.ERROR):
        events = run(tmp_path, labels=False)
    assert "case x cannot be shown in the live view; training continues" in caplog.text
    assert len(events.Scalars("training/term")) == 2
    assert events.Tags()["images"] == []
