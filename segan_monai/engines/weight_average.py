# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from segan_monai.errors import ConfigError


class WeightAverage:
    """Exponential moving average (EMA) of a network in training, as a second network.

    After step t = 0, 1, 2, ... of the optimizer, ``average = d * average + (1 - d) * network`` with
    ``d = min(decay, (1 + t) / (10 + t))``. This warm-up makes short trainings forget their first weights (as in
    TensorFlow's ``ExponentialMovingAverage``).

    Running statistics of batch norm are averaged as the weights are: a mean of statistics belongs to a mean of weights,
    and the result needs no further pass over the data, which would draw random numbers. Counters are copied.

    The update is PyTorch's ``get_ema_multi_avg_fn``. Its ``AveragedModel`` also averages counters, and waits for the
    GPU in every step. Ignite's ``EMAHandler`` (0.5.5) has no state dict, so a resumed run would begin a new average and
    warm-up; it averages one parameter after the other, and by default shares its buffers with the network.

    Args:
        network: the network in training.
        decay: weight of the old average, in (0, 1), such as 0.99. The average looks back about ``1 / (1 - decay)``
            steps.

    Attributes:
        network: the averaged network: a copy with the same keys, in evaluation mode and without gradients.
        updates: number of steps averaged so far.

    Raises:
        ConfigError: if ``decay`` is out of range.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigError(
                f"ema_decay is {decay}; expected a number from 0 (no averaging) to below 1, such as 0.99."
            )
        self.decay = decay
        self.updates = 0
        self.source = network
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    def begin(self) -> None:
        """Start from the weights of the network as they are now, unless the average has begun."""
        if not self.updates:
            self.network.load_state_dict(self.source.state_dict())

    @torch.no_grad()
    def update(self) -> None:
        """Include the network's present weights; call it after each step of its optimizer."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averaged, current = _tensors(self.network), _tensors(self.source)
        floating = [index for index, tensor in enumerate(averaged) if tensor.is_floating_point()]
        average = get_ema_multi_avg_fn(decay)
        average([averaged[index] for index in floating], [current[index] for index in floating], self.updates)
        for old, new in zip(averaged, current, strict=True):
            if not old.is_floating_point():
                old.copy_(new)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged network's state and the number of steps, which the warm-up needs."""
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.network.load_state_dict(state["network"])
        self.updates = state["updates"]


def _tensors(network: nn.Module) -> list[Tensor]:
    """Return parameters and buffers."""
    return [tensor.detach() for tensor in chain(network.parameters(), network.buffers())]
