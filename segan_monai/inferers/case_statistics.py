# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Batch norm with the statistics of the case to segment, for images unlike those of the training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segan_monai.errors import ConfigError

CASE_SLICES = 32
"""Most slices from which the statistics of a case are taken; more cost memory and hardly change them."""


def check_share(share: float) -> float:
    """Return the share of a case's own statistics.

    Raises:
        ConfigError: if it is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(
            f"case_statistics is {share}; expected a number from 0 (statistics of the training) to 1 (of the case)."
        )
    return share


def evenly_spaced(slices: Tensor, count: int = CASE_SLICES) -> Tensor:
    """Return at most ``count`` of the indices (S,), from the first to the last.

    Examples:
        >>> evenly_spaced(torch.arange(10, 20), 4)
        tensor([10, 13, 16, 19])
    """
    if len(slices) <= count:
        return slices
    return slices[torch.linspace(0, len(slices) - 1, count, device=slices.device).round().long()]


def with_case_statistics(network: Callable[..., Any], batch: Tensor, share: float) -> nn.Module:
    """Return a copy of a network whose batch norm layers use the statistics of a case.

    ``mean = (1 - share) * mean of the training + share * mean of the case``, and the same for the variance. The means
    of the case are those of one pass of ``batch`` in which each layer normalizes by the batch itself. No weight
    changes, and the given network stays as it is.

    Source: Nado et al. (2020), prediction-time batch normalization, with the case as the batch; the mixture is that of
    Schneider et al. (2020).

    Args:
        network: a network with batch norm layers.
        batch: slices of the case (B, C, H, W), at least 2.
        share: share of the case's statistics, above 0 and at most 1.

    Raises:
        ConfigError: if the network is no module, or has no batch norm with statistics of a training.
    """
    if not isinstance(network, nn.Module):
        raise ConfigError(f"case_statistics needs a PyTorch module; found {type(network).__name__}. Set it to 0.")
    adapted = copy.deepcopy(network).eval()
    norms = [layer for layer in adapted.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not norms:
        raise ConfigError(
            "case_statistics needs batch norm layers, and the network has none. Set it to 0, or train with "
            "--norm batch."
        )
    for layer in norms:
        layer.train()
        layer.momentum = share
    with torch.no_grad():
        adapted(batch)
    return adapted.eval()
