# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader
from monai.engines import Evaluator

from segan_monai.engines import SegANTrainer
from segan_monai.errors import ConfigError, OutputError, UserError
from segan_monai.handlers import FinalValidationHandler, RunCheckpoint
from segan_monai.handlers.resumed_schedule import resume_optimizer
from segan_monai.losses import MultiScaleL1Loss
from segan_monai.networks import SegANCritics, SegANSegmentor, load_weights
from segan_monai.networks.weights import save_atomically
from segan_monai.transforms import RandSlicesd, SlicesWithContentd


class Scores(Evaluator):
    """A validator whose key metric is given for each epoch."""

    def __init__(self, scores):
        super().__init__(device=torch.device("cpu"), val_data_loader=[0])
        self.scores = dict(scores)

    def run(self, epoch):
        self.state.epoch = epoch
        if self.scores[epoch] > self.state.best_metric:
            self.state.best_metric, self.state.best_metric_epoch = self.scores[epoch], epoch


def make_run(folder, epochs, resume=False, scores=None, num_workers=0, **settings):
    torch.manual_seed(3)
    segmentor, critic = SegANSegmentor(1, 1, base_channels=4), SegANCritics(1, 1, base_channels=4)
    generator = torch.Generator().manual_seed(4)
    volumes = [{"image": torch.rand(1, 20, 20, 4, generator=generator)} for _ in range(4)]
    for volume in volumes:
        volume["label"] = (volume["image"] > 0.5).float()
    transforms = [
        SlicesWithContentd(["image", "label"]),
        RandSlicesd(["image", "label"], label_key="label", num_samples=2, roi_size=(16, 16)),
    ]
    dataset = CacheDataset(volumes, transforms, progress=False)
    optimizer = torch.optim.RMSprop(segmentor.parameters(), lr=1e-3)
    critic_optimizer = torch.optim.RMSprop(critic.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    objects = {
        "network": segmentor,
        "critic": critic,
        "optimizer": optimizer,
        "critic_optimizer": critic_optimizer,
        "scheduler": scheduler,
    }
    validator = Scores(scores) if scores else None
    handlers = [
        *([FinalValidationHandler(1, validator)] if validator else []),
        RunCheckpoint(str(folder / "run"), str(folder / "models"), segmentor, objects, validator, resume),
    ]
    trainer = SegANTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(dataset, batch_size=2, shuffle=True, num_workers=num_workers),
        network=segmentor,
        optimizer=optimizer,
        critic=critic,
        critic_optimizer=critic_optimizer,
        loss_function=MultiScaleL1Loss(),
        train_handlers=handlers,
        **settings,
    )
    (folder / "run").mkdir(exist_ok=True)
    return trainer, objects


def state(objects):
    return {
        f"{name}.{key}": value for name in ("network", "critic") for key, value in objects[name].state_dict().items()
    }


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_ends_with_the_very_same_weights(tmp_path, num_workers):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, expected = make_run(tmp_path / "whole", epochs=4, num_workers=num_workers)
    torch.manual_seed(11)
    whole.run()

    first, _ = make_run(tmp_path / "parts", epochs=2, num_workers=num_workers)
    torch.manual_seed(11)
    first.run()
    second, found = make_run(tmp_path / "parts", epochs=4, resume=True, num_workers=num_workers)
    torch.manual_seed(99)
    second.run()

    assert second.state.epoch == 4
    assert second.state.iteration == whole.state.iteration
    expected, found = state(expected), state(found)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("stop_after", [None, 3])
def test_averaged_weights_resume_and_are_the_model(stop_after, tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, _ = make_run(tmp_path / "whole", epochs=4, ema_decay=0.9)
    torch.manual_seed(11)
    whole.run()

    first, _ = make_run(tmp_path / "parts", epochs=4 if stop_after else 2, ema_decay=0.9)
    torch.manual_seed(11)
    if stop_after:  # in the middle of the second epoch
        first.add_event_handler(Events.ITERATION_STARTED(once=stop_after), lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            first.run()
    else:
        first.run()
    second, objects = make_run(tmp_path / "parts", epochs=4, resume=True, ema_decay=0.9)
    torch.manual_seed(99)
    second.run()

    expected, found = whole.averaged.state_dict(), second.averaged.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    model = torch.load(tmp_path / "parts" / "models" / "model.pt", weights_only=True)
    assert model.keys() == expected.keys()
    assert all(torch.equal(expected[name], model[name]) for name in expected)
    last = torch.load(tmp_path / "parts" / "run" / "last.pt", weights_only=True)
    assert last["averaged"]["updates"] == 8
    assert all(torch.equal(last["network"][key], value) for key, value in objects["network"].state_dict().items())
    assert any(not torch.equal(last["network"][name], model[name]) for name in model)


def test_without_averaging_the_checkpoint_is_as_before_and_cannot_start_it(tmp_path):
    run, _ = make_run(tmp_path, epochs=1)
    run.run()
    assert "averaged" not in torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    resumed, _ = make_run(tmp_path, epochs=2, resume=True, ema_decay=0.9)
    with pytest.raises(ConfigError, match="has no averaged weights, because that training had no ema_decay"):
        resumed.run()


def test_a_run_with_averaging_does_not_go_on_without(tmp_path):
    """The best metric is that of averaged weights, so that worse ones of the network itself could replace model.pt."""
    make_run(tmp_path, epochs=1, ema_decay=0.9)[0].run()
    resumed, _ = make_run(tmp_path, epochs=2, resume=True)
    with pytest.raises(ConfigError, match="has averaged weights, and its best metric is theirs, but ema_decay is 0"):
        resumed.run()


def test_optimizers_and_schedulers_resume(tmp_path):
    run, objects = make_run(tmp_path, epochs=1)
    run.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: objects["scheduler"].step())
    run.run()
    resumed, found = make_run(tmp_path, epochs=1, resume=True)
    resumed.run()
    assert found["optimizer"].param_groups[0]["lr"] == 5e-4
    assert found["scheduler"].last_epoch == 1
    for name in ("optimizer", "critic_optimizer"):
        ours, theirs = found[name].state_dict()["state"], objects[name].state_dict()["state"]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key]["square_avg"], theirs[key]["square_avg"]) for key in ours)


def rates_of(folder, make, batches, epochs, resume=False, stop_after=None, rate=1e-3):
    """Learning rate and batches of each epoch of a training of one weight."""
    weight = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(weight.parameters(), lr=rate)
    scheduler = make(optimizer, epochs)
    seen = {}

    def step(engine, batch):
        seen.setdefault(engine.state.epoch, []).append(batch)
        engine.stop_requested = engine.state.iteration == stop_after
        optimizer.step()

    trainer = Engine(step)
    trainer.state.device, rates = torch.device("cpu"), {}
    trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda: rates.update({trainer.state.epoch: optimizer.param_groups[0]["lr"]})
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: scheduler.step())
    # schedules may come before their optimizer
    objects = {"lr_scheduler": scheduler, "network": weight, "optimizer": optimizer}
    RunCheckpoint(str(folder), str(folder), weight, objects, None, resume).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: trainer.stop_requested and trainer.terminate())
    trainer.run(batches, max_epochs=epochs)
    return rates, seen


def polynomial(optimizer, epochs):
    return torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=epochs, power=0.5)


def steps_of_two(optimizer, epochs):
    return torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)


def test_a_training_resumed_with_more_epochs_learns_in_them(tmp_path, caplog):
    whole, _ = rates_of(tmp_path, polynomial, "ab", 4)
    assert whole[4] == pytest.approx(1e-3 * 0.25**0.5)
    rates, _ = rates_of(tmp_path, polynomial, "ab", 16, resume=True)
    assert {epoch: rate for epoch, rate in rates.items() if epoch in (5, 8, 16)} == {
        5: pytest.approx(1e-3 * (12 / 16) ** 0.5),
        8: pytest.approx(1e-3 * (9 / 16) ** 0.5),
        16: pytest.approx(1e-3 * (1 / 16) ** 0.5),
    }
    assert "total_iters is 16, but 4 in the checkpoint; the learning rate is now 0.000866" in caplog.text


def test_a_training_resumed_with_another_rate_has_it(tmp_path, caplog):
    rates_of(tmp_path, steps_of_two, "ab", 3)
    rates, _ = rates_of(tmp_path, steps_of_two, "ab", 6, resume=True, rate=1e-5)
    assert rates == {4: pytest.approx(1e-6), 5: pytest.approx(1e-7), 6: pytest.approx(1e-7)}
    assert "base_lrs is [1e-05], but [0.001] in the checkpoint" in caplog.text


def test_an_optimizer_resumed_with_other_settings_has_them(caplog):
    weight = torch.nn.Parameter(torch.ones(1))
    before = torch.optim.Adam([weight], lr=1e-3, betas=(0.5, 0.999))
    weight.grad = torch.ones(1)
    before.step()
    state = {**before.state_dict(), "param_groups": json.loads(json.dumps(before.state_dict()["param_groups"]))}
    for betas, said in (((0.5, 0.999), False), ((0.9, 0.999), True)):
        resumed = torch.optim.Adam([weight], lr=1e-2, betas=betas)
        resume_optimizer("optimizer", resumed, state)
        assert tuple(resumed.param_groups[0]["betas"]) == betas
        assert resumed.param_groups[0]["lr"] == 1e-3, "the schedule's"
        assert torch.equal(resumed.state[weight]["exp_avg"], before.state[weight]["exp_avg"])
        assert ("optimizer: betas is (0.9, 0.999), but [0.5, 0.999] in the checkpoint" in caplog.text) is said
    torch.optim.lr_scheduler.OneCycleLR(resumed, 0.1, total_steps=10)
    moved = resumed.state_dict()
    moved["param_groups"][0]["betas"] = (0.87, 0.999)
    resume_optimizer("optimizer", resumed, moved)
    assert resumed.param_groups[0]["betas"] == (0.87, 0.999), "the schedule moves it"


def test_a_schedule_without_closed_form_is_loaded_as_it_was(tmp_path, caplog):
    def hyperbola(optimizer, epochs):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))

    rates_of(tmp_path, hyperbola, "ab", 2)
    rates, _ = rates_of(tmp_path, hyperbola, "ab", 4, resume=True)
    assert rates == {3: pytest.approx(1e-3 / 3), 4: pytest.approx(1e-3 / 4)}
    assert "in the checkpoint" not in caplog.text


def test_an_epoch_of_another_length_begins_anew(tmp_path, caplog):
    """As with another batch size or number of processes."""
    rates_of(tmp_path, steps_of_two, "abcdefgh", 5, stop_after=23)
    _, seen = rates_of(tmp_path, steps_of_two, "ABCD", 5, resume=True)
    assert seen == {epoch: list("ABCD") for epoch in (3, 4, 5)}
    assert "after 7 of 8 batches of epoch 3; this training has 4 batches per epoch" in caplog.text


def test_model_is_the_best_epoch_and_a_resumed_run_knows_the_best(tmp_path):
    run, objects = make_run(tmp_path, epochs=2, scores={1: 0.8, 2: 0.5})
    run.run()
    saved = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert not all(torch.equal(saved[k], v) for k, v in objects["network"].state_dict().items())

    resumed, _ = make_run(tmp_path, epochs=3, resume=True, scores={3: 0.7})
    resumed.run()
    after = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(saved[k], after[k]) for k in saved), "0.7 is not better than the 0.8 before the resume"

    resumed, found = make_run(tmp_path, epochs=4, resume=True, scores={4: 0.9})
    resumed.run()
    after = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(after[k], v) for k, v in found["network"].state_dict().items())


def test_without_validation_the_last_epoch_becomes_the_model(tmp_path):
    run, objects = make_run(tmp_path, epochs=2)
    run.run()
    network = load_weights(SegANSegmentor(1, 1, base_channels=4), tmp_path / "models" / "model.pt")
    expected = objects["network"].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_the_split_travels_with_the_weights(tmp_path):
    run, _ = make_run(tmp_path, epochs=1)
    (tmp_path / "run" / "split.json").write_text(json.dumps({"training": ["a"]}), encoding="utf-8")
    run.run()
    assert json.loads((tmp_path / "models" / "split.json").read_text(encoding="utf-8")) == {"training": ["a"]}


def test_the_quality_of_the_weights_before_goes_with_them(tmp_path, caplog):
    (tmp_path / "models").mkdir()
    stale = tmp_path / "models" / "quality.json"
    stale.write_text("{}", encoding="utf-8")
    run, _ = make_run(tmp_path, epochs=1)
    run.run()
    assert not stale.exists()
    assert "quality.json: it was fitted to the weights before this training" in caplog.text


def test_an_interrupted_write_leaves_the_previous_checkpoint_whole(tmp_path):
    class Broken:
        def __reduce__(self):
            raise OSError("disk full")

    file = tmp_path / "last.pt"
    save_atomically({"epoch": 1}, file)
    with pytest.raises(OutputError, match=r"last.pt cannot be written \(disk full\).* Free space on the disk"):
        save_atomically({"epoch": 2, "broken": Broken()}, file)
    assert torch.load(file, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_resume_without_a_checkpoint_says_so(tmp_path):
    run, _ = make_run(tmp_path, epochs=1, resume=True)
    with pytest.raises(ConfigError, match=r"--resume true, but .*last.pt does not exist"):
        run.run()


def test_resume_with_another_architecture_says_so(tmp_path):
    run, _ = make_run(tmp_path, epochs=1)
    run.run()
    resumed, _ = make_run(tmp_path, epochs=2, resume=True)
    resumed_handler = RunCheckpoint(
        str(tmp_path / "run"), str(tmp_path), SegANSegmentor(1, 1, 8), {"network": SegANSegmentor(1, 1, 8)}, resume=True
    )
    with pytest.raises(ConfigError, match=r"last.pt: its 'network' does not match this configuration"):
        resumed_handler.load(resumed)


def test_validation_runs_at_the_interval_and_after_the_last_epoch(tmp_path):
    seen = []

    class Spy(Scores):
        def run(self, epoch):
            seen.append(epoch)

    trainer = Engine(lambda engine, batch: None)
    FinalValidationHandler(3, Spy({})).attach(trainer)
    trainer.run([0], max_epochs=7)
    assert seen == [3, 6, 7]


def test_a_weight_that_is_not_finite_never_replaces_a_good_checkpoint(tmp_path):
    run, objects = make_run(tmp_path, epochs=2)

    def poison():
        with torch.no_grad():
            next(objects["critic"].parameters()).view(-1)[0] = float("nan")

    run.add_event_handler(Events.ITERATION_COMPLETED(once=2 * run.state.epoch_length), poison)
    with pytest.raises(
        UserError, match=r"of 'critic' is NaN or infinite after epoch 2. .*last.pt of the previous epoch"
    ):
        run.run()
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["epoch"] == 1


@pytest.mark.parametrize(("last_iteration", "epochs", "batches"), [(3, 1, 1), (4, 2, 0)])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_stopped_in_an_epoch_and_resumed_the_weights_are_the_very_same(
    tmp_path, num_workers, last_iteration, epochs, batches
):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, expected = make_run(tmp_path / "whole", epochs=3, num_workers=num_workers)
    torch.manual_seed(11)
    whole.run()

    first, _ = make_run(tmp_path / "parts", epochs=3, num_workers=num_workers)
    first.add_event_handler(Events.ITERATION_STARTED(once=last_iteration), lambda: os.kill(os.getpid(), signal.SIGTERM))
    torch.manual_seed(11)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        first.run()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert first.state.iteration == last_iteration
    assert signal.getsignal(signal.SIGTERM) == before
    checkpoint = torch.load(tmp_path / "parts" / "run" / "last.pt", weights_only=True)
    assert (checkpoint["epoch"], checkpoint.get("batches_done", 0)) == (epochs, batches)

    second, found = make_run(tmp_path / "parts", epochs=3, resume=True, num_workers=num_workers)
    torch.manual_seed(99)
    second.run()
    assert second.state.iteration == whole.state.iteration == 6
    expected, found = state(expected), state(found)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
