# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Schedules and optimizers of a resumed training, which may have more epochs or other settings than before."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

logger = logging.getLogger(__name__)

# of a schedule's state, what changes from step to step
_MOVING = {"last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial"}


# of a group of an optimizer, what the schedule sets; cyclic ones set the momentum too
_OF_SCHEDULE = {"params", "lr", "initial_lr"}
_OF_CYCLE = {"momentum", "betas", "base_momentum", "max_momentum"}


def resume_optimizer(name: str, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of an optimizer, and go on with the settings that it has now, such as ``betas``.

    Settings that differ are named in a warning. The learning rate is that of the checkpoint, see ``resume_schedule``.

    Args:
        name: name of the optimizer, for the warning.
        optimizer: the optimizer of this training.
        state: its state in the checkpoint.
    """
    settings = [
        {key: group[key] for key in group.keys() - _OF_SCHEDULE - (_OF_CYCLE if "max_momentum" in group else set())}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(dict(state))
    changed: dict[str, None] = {}  # in order, each once
    for group, now in zip(optimizer.param_groups, settings, strict=True):
        for key in sorted(now):
            if key in group and _plain(group[key]) != _plain(now[key]):
                changed[f"{key} is {now[key]}, but {group[key]} in the checkpoint"] = None
                group[key] = now[key]
    if changed:
        logger.warning("%s: %s; it goes on with the new ones", name, ", ".join(changed))


def _plain(value: Any) -> Any:
    """Return a setting as it is read from a file: a tuple as a list."""
    return list(value) if isinstance(value, tuple) else value


def resume_schedule(name: str, scheduler: LRScheduler, state: Mapping[str, Any]) -> None:
    """Load the state of a schedule, and go on with the constants that it has now.

    If a constant differs, such as the total number of epochs or the first learning rate, the learning rate is that of
    the new curve at the epoch reached, and a warning tells it. PyTorch's own ``load_state_dict`` would bring back the
    old constants: a polynomial schedule of 10 epochs that is resumed with 20 would train 10 epochs at a rate of 0. A
    schedule without a closed form, such as ``ReduceLROnPlateau``, is loaded as it was.

    Call it after the state of the optimizer was loaded.

    Args:
        name: name of the schedule, for the warning.
        scheduler: the schedule of this training.
        state: its state in the checkpoint.
    """
    closed_form = getattr(scheduler, "_get_closed_form_lr", None)
    now = scheduler.state_dict() if closed_form else {}
    changed = {
        key: (state[key], value)
        for key, value in now.items()
        if key not in _MOVING and key in state and state[key] != value
    }
    scheduler.load_state_dict({**state, **{key: value for key, (_, value) in changed.items()}})
    if not changed or closed_form is None:
        return
    rates = closed_form()
    for group, base, rate in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, rates, strict=True):
        group["initial_lr"] = base
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    scheduler._last_lr = rates
    differences = [f"{key} is {value}, but {before} in the checkpoint" for key, (before, value) in changed.items()]
    now_at = ", ".join(f"{float(rate):g}" for rate in rates)
    logger.warning("%s: %s; the learning rate is now %s", name, ", ".join(differences), now_at)
