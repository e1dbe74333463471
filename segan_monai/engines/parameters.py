# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Weights of networks and optimizers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Disable parameter gradients of these networks inside the block; gradients still flow to their inputs."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def clamp_weights(parameters: Iterable[Tensor], bound: float) -> None:
    """Clamp all weights to [-bound, bound] in place, with fused calls."""
    tensors = list(parameters)
    with torch.no_grad():
        torch._foreach_clamp_min_(tensors, -bound)
        torch._foreach_clamp_max_(tensors, bound)


def weights_of(optimizer: Optimizer) -> list[Tensor]:
    """Return the weights of an optimizer."""
    return [p for group in optimizer.param_groups for p in group["params"]]
