# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import pandas as pd
import pytest
import torch
from ignite.engine import Events

from segan_monai.engines import SegANTrainer, SemiSupervisedTrainer
from segan_monai.handlers.epoch_log import EpochLog
from segan_monai.losses import MultiScaleL1Loss
from segan_monai.networks import SegANCritics, SegANSegmentor
from segan_monai.report.history import read_history
from segan_monai.report.plots import layer_shares


def make_trainer(loss, batches=12, epochs=1, kind=SegANTrainer, **settings):
    torch.manual_seed(0)
    segmentor, critic = SegANSegmentor(1, 1, base_channels=4), SegANCritics(1, 1, base_channels=4)
    data = [
        {"image": torch.rand(2, 1, 32, 32), "label": (torch.rand(2, 1, 32, 32) > 0.5).float()} for _ in range(batches)
    ]
    return kind(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=data,
        network=segmentor,
        optimizer=torch.optim.SGD(segmentor.parameters(), lr=0.01),
        critic=critic,
        critic_optimizer=torch.optim.RMSprop(critic.parameters(), lr=0.01),
        loss_function=loss,
        **settings,
    )


def measured(trainer):
    """The shares of each iteration; empty where nothing was measured."""
    shares = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: shares.append(trainer.state.output.get("layers", {})))
    trainer.run()
    return shares


@pytest.mark.parametrize("layers", [None, [0, 3]])
def test_shares_are_measured_once_per_epoch_and_sum_to_one(layers):
    shares = measured(make_trainer(MultiScaleL1Loss(layers), batches=3, epochs=2))
    expected = {f"{kind}_{i}" for i in layers or range(4) for kind in ("loss", "gradient")}
    assert [set(found) for found in shares] == [expected, set(), set()] * 2
    for kind in ("loss", "gradient"):
        assert sum(float(value) for name, value in shares[0].items() if name.startswith(kind)) == pytest.approx(1)


def test_measuring_changes_nothing():
    """Weights, gradients and running statistics are those of a training without the measurement."""
    trainer = make_trainer(MultiScaleL1Loss(), batches=2)
    plain = copy.deepcopy((trainer.network, trainer.critic))
    trainer.run()
    unmeasured = make_trainer(lambda u, v: MultiScaleL1Loss()(u, v), batches=2)
    unmeasured.run()
    for ours, other, before in zip(
        (trainer.network, trainer.critic), (unmeasured.network, unmeasured.critic), plain, strict=True
    ):
        assert any(not torch.equal(a, b) for a, b in zip(ours.parameters(), before.parameters(), strict=True))
        for name, value in ours.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_balanced_layers_have_gradients_of_one_order_of_magnitude():
    def shares(reduction):
        found = measured(make_trainer(MultiScaleL1Loss(reduction=reduction), batches=31, epochs=2))[31]
        return [float(found[f"gradient_{i}"]) for i in range(4)]

    unbalanced, balanced = shares("per_layer"), shares("balanced")
    assert max(unbalanced) > 100 * min(unbalanced)
    assert max(balanced) < 5 * min(balanced)


def test_what_is_unknown_counts_in_no_layer():
    def shares(at, mask=True):
        trainer = make_trainer(MultiScaleL1Loss(reduction="balanced"), 1, kind=SemiSupervisedTrainer)
        (batch,) = trainer.data_loader
        if mask:
            batch["mask"] = torch.ones(2, 1, 32, 32)
            batch["mask"][..., :16] = 0
        batch["label"][..., at] = 1 - batch["label"][..., at]
        found = {name: float(value) for name, value in measured(trainer)[0].items()}
        return found, trainer.loss_function.gradient_norms.tolist()

    assert shares(3) == shares(4), "labels that differ where they are unknown"
    assert shares(3) != shares(20)
    assert shares(3, mask=False) != shares(4, mask=False)


def test_nothing_is_measured_before_the_critics_join():
    supervised = {"supervised_weight": 1, "supervised_loss": torch.nn.BCEWithLogitsLoss()}
    shares = measured(make_trainer(MultiScaleL1Loss(), 2, 2, critic_start=2, **supervised))
    assert [bool(found) for found in shares] == [False, False, True, False]


def test_shares_are_in_the_history_and_not_in_the_log(tmp_path, caplog):
    trainer = make_trainer(MultiScaleL1Loss(), batches=2)
    EpochLog(tmp_path).attach(trainer)
    with caplog.at_level("INFO"):
        trainer.run()
    history = pd.read_csv(tmp_path / "history.csv").set_index("name")["value"]
    assert history[[f"layers/loss_{i}" for i in range(4)]].sum() == pytest.approx(1)
    assert "training/layers" not in "".join(history.index)
    assert "loss_0" not in caplog.text
    assert layer_shares(read_history(tmp_path / "history.csv")).count("share of the gradient") == 1
