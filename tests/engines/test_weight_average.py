# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The moving average of a network's weights, and what a trainer does with it."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Events
from torch import nn

from segan_monai.engines import SegmentationTrainer, WeightAverage
from segan_monai.errors import ConfigError
from segan_monai.networks import SegANSegmentor


def one_weight(value):
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        # the warm-up allows 1/10, 2/11 and 3/12 in the first three steps: 0.1 * 1 + 0.9 * 2 = 1.9, ...
        (0.99, [1.9, 1.9 * 2 / 11 + 4 * 9 / 11, (1.9 * 2 / 11 + 4 * 9 / 11) / 4 + 8 * 3 / 4]),
        (0.15, [1.9, 1.9 * 0.15 + 4 * 0.85, (1.9 * 0.15 + 4 * 0.85) * 0.15 + 8 * 0.85]),
    ],
)
def test_three_steps_by_hand(decay, expected):
    network = one_weight(1.0)
    average = WeightAverage(network, decay)
    found = []
    for value in (2.0, 4.0, 8.0):
        nn.init.constant_(network.weight, value)
        average.update()
        found.append(average.network(torch.ones(1, 1)).item())
    assert found == pytest.approx(expected)
    assert network.weight.item() == 8


def test_running_statistics_are_averaged_and_counters_copied():
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, 0.99)
    for value in (2.0, 4.0):
        network.running_mean.fill_(value)
        network.num_batches_tracked.fill_(int(value) * 10)
        average.update()
    assert average.network.running_mean.item() == pytest.approx(0.9 * 2 * 2 / 11 + 4 * 9 / 11)
    assert average.network.num_batches_tracked.item() == 40
    network.num_batches_tracked.fill_(7)
    assert average.network.num_batches_tracked.item() == 40, "no tensor is shared"


def test_the_averaged_network_is_ready_for_use():
    network = SegANSegmentor(1, 1, base_channels=4)
    averaged = WeightAverage(network, 0.9).network
    assert network.training
    assert not averaged.training
    assert not any(parameter.requires_grad for parameter in averaged.parameters())
    assert averaged.state_dict().keys() == network.state_dict().keys()


def test_the_state_restores_weights_and_warm_up():
    first = WeightAverage(one_weight(1.0), 0.99)
    for value in (2.0, 4.0):
        nn.init.constant_(first.source.weight, value)
        first.update()
    second = WeightAverage(one_weight(4.0), 0.99)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for average in (first, second):
        average.begin()
        nn.init.constant_(average.source.weight, 8.0)
        average.update()
    assert torch.equal(second.network.weight, first.network.weight)


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ConfigError, match=rf"ema_decay is {decay}; expected a number from 0 \(no averaging\) to below"):
        make_trainer(ema_decay=decay)


def make_trainer(epochs=1, **settings):
    torch.manual_seed(0)
    network = SegANSegmentor(1, 1, base_channels=4)
    batches = [{"image": torch.rand(2, 1, 16, 16), "label": torch.ones(2, 1, 16, 16)} for _ in range(2)]
    return SegmentationTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=nn.BCEWithLogitsLoss(),
        **settings,
    )


def test_a_trainer_averages_after_each_step_and_trains_as_without():
    plain, averaging = make_trainer(), make_trainer(ema_decay=0.99)
    states = [copy.deepcopy(plain.network.state_dict())]
    plain.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: states.append(copy.deepcopy(plain.network.state_dict()))
    )
    for trainer in (plain, averaging):
        trainer.run()
    assert plain.averaged is None
    for name, weight in averaging.network.state_dict().items():
        assert torch.equal(weight, states[-1][name])
    for name, weight in averaging.averaged.state_dict().items():
        start, first, second = (state[name].double() for state in states)
        expected = second if name.endswith("tracked") else (start / 10 + first * 0.9) * 2 / 11 + second * 9 / 11
        torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6)


def test_weights_loaded_when_the_training_starts_are_where_the_average_begins():
    trainer = make_trainer(ema_decay=0.99)
    loaded = {name: torch.zeros_like(weight) for name, weight in trainer.network.state_dict().items()}
    given = make_trainer(
        ema_decay=0.99, train_handlers=[OnStart(lambda engine: engine.network.load_state_dict(loaded))]
    )
    begun = []
    given.add_event_handler(Events.EPOCH_STARTED, lambda: begun.extend(given.averaged.state_dict().values()))
    given.add_event_handler(Events.EPOCH_STARTED, given.terminate)
    given.run()
    assert len(begun) == len(loaded)
    assert not any(weight.any() for weight in begun)


class OnStart:
    """A handler that does something when the training starts, like MONAI's ``CheckpointLoader``."""

    def __init__(self, action):
        self.action = action

    def attach(self, engine):
        engine.add_event_handler(Events.STARTED, self.action)


def test_a_compiled_network_is_averaged_too():
    plain, compiled = make_trainer(ema_decay=0.9), make_trainer(ema_decay=0.9, compile="eager")
    for trainer in (plain, compiled):
        trainer.run()
    assert compiled.averaged.state_dict().keys() == plain.averaged.state_dict().keys()
    for name, weight in compiled.averaged.state_dict().items():
        torch.testing.assert_close(weight, plain.averaged.state_dict()[name])
    assert compiled.averaged._compiled_call_impl is not None, "validated as the network itself would be"
