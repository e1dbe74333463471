# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""When a validation runs, and which of them counts as the best."""

from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.engines import SupervisedEvaluator

from segan_monai.engines import SegmentationTrainer
from segan_monai.handlers import FinalValidationHandler


class Given(Metric):
    """A metric that is given for each run."""

    def __init__(self, values):
        super().__init__()
        self.values = iter(values)

    def reset(self):
        pass

    def update(self, output):
        pass

    def compute(self):
        return next(self.values)


def validate(values, interval=1):
    """Epoch and value of the best validation, after a training with such metrics."""
    validator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{"image": torch.zeros(1, 1)}],
        network=torch.nn.Identity(),
        key_val_metric={"score": Given(values)},
    )
    trainer = Engine(lambda engine, batch: None)
    FinalValidationHandler(interval, validator).attach(trainer)
    trainer.run([0], max_epochs=3)
    return validator.state.best_metric_epoch, validator.state.best_metric


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([math.nan, 0.2, 0.1], (2, 0.2)),
        ([0.2, math.nan, 0.1], (1, 0.2)),
        ([math.nan, math.inf, 0.1], (3, 0.1)),
        ([math.nan, math.nan, math.nan], (-1, -1)),
        ([0.0, 0.1, 0.3], (3, 0.3)),
    ],
)
def test_nan_is_never_the_best(values, best):
    assert validate(values) == best


def test_nan_is_said(caplog):
    validate([0.1, 0.2, math.inf])
    assert "validation after epoch 3: the key metric is inf, which is never used as the best value" in caplog.text


def test_the_last_epoch_is_always_validated():
    assert validate([0.1, 0.5], interval=2) == (3, 0.5)


def test_averaged_weights_are_validated():
    network = torch.nn.Conv2d(1, 1, 1, bias=False)
    seen = []

    class Recorded(SupervisedEvaluator):
        def run(self, global_epoch=1):
            seen.append(self.network.weight.item())

    validator = Recorded(device=torch.device("cpu"), val_data_loader=[0], network=network)
    trainer = SegmentationTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": torch.ones(1, 1, 4, 4), "label": torch.ones(1, 1, 4, 4)}],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=torch.nn.BCEWithLogitsLoss(),
        train_handlers=[FinalValidationHandler(1, validator)],
        ema_decay=0.9,
    )
    before = network.weight.item()
    trainer.run()
    assert seen == pytest.approx([0.1 * before + 0.9 * network.weight.item()], rel=1e-5)
    assert validator.network is network
