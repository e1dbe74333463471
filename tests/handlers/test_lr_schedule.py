# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings

import pytest
import torch
from ignite.engine import Engine, Events

from segan_monai.handlers import LrSchedule


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def train(schedule, epochs, **settings):
    trainer = Engine(lambda engine, batch: None)
    LrSchedule(schedule, print_lr=False, **settings).attach(trainer)
    trainer.run([0], max_epochs=epochs)


def test_it_moves_on_before_the_optimizer_takes_a_step_without_a_warning():
    critic = optimizer()
    filters = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(torch.optim.lr_scheduler.StepLR(critic, step_size=1, gamma=0.5), epochs=3)
    assert critic.param_groups[0]["lr"] == 0.125
    assert warnings.filters == filters


def test_a_schedule_that_starts_in_a_later_epoch_is_silent():
    trainer = Engine(lambda engine, batch: None)
    LrSchedule(torch.optim.lr_scheduler.StepLR(optimizer(), step_size=1), print_lr=False).attach(trainer)
    trainer.state.epoch, trainer.state.max_epochs = 4, 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fire_event(Events.EPOCH_COMPLETED)


def test_other_warnings_come_through():
    class Talking(torch.optim.lr_scheduler.StepLR):
        def step(self, *args):
            super().step(*args)
            warnings.warn("something else", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="something else"):
        train(Talking(optimizer(), step_size=1), epochs=1)


def test_a_schedule_may_ask_for_a_metric():
    critic = optimizer()
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(critic, factor=0.5, patience=0)
    train(schedule, epochs=3, step_transform=lambda trainer: 1.0)  # no better in the second and third epoch
    assert critic.param_groups[0]["lr"] == 0.25


def test_no_step_where_the_metric_is_none():
    critic = optimizer()
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(critic, factor=0.5, patience=0)
    # the small values of a warm-up would count as best
    train(schedule, epochs=4, step_transform=lambda trainer: None if trainer.state.epoch < 3 else 1.0)
    assert schedule.last_epoch == 2
    assert schedule.best == 1.0
    assert critic.param_groups[0]["lr"] == 0.5
