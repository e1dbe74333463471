# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Retries after out-of-memory errors, with smaller batches and finally on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


def with_less_memory(
    apply: Callable[[int, torch.device], Tensor], batch_size: int, device: torch.device, what: str = "slices"
) -> Tensor:
    """Run a function and halve the batch size on out-of-memory errors, down to 1; then run it on the CPU.

    Each retry is logged.

    Args:
        apply: function to run, called with a batch size and a device.
        batch_size: initial batch size.
        device: initial device.
        what: name of the batched items, for the log.

    Raises:
        torch.OutOfMemoryError: if memory is insufficient even with a batch size of 1 on the CPU.
    """
    size = batch_size
    while True:
        try:
            return apply(size, device)
        except torch.OutOfMemoryError:
            if size == 1 and device.type == "cpu":
                raise
        # outside the except block, because the exception keeps the tensors of the failed attempt alive
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size > 1:
            size //= 2
            logger.warning("out of memory on %s: trying again with %d %s at a time", device, size, what)
        else:
            size, device = batch_size, torch.device("cpu")
            logger.warning("out of memory with a single one of the %s: trying again on the CPU, which is slower", what)


@contextmanager
def moved(network: Callable[..., Any], device: torch.device) -> Iterator[None]:
    """Move a network to a device inside the block, and back afterwards."""
    weight = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    if weight is None or weight.device.type == device.type or not isinstance(network, nn.Module):
        yield
        return
    home = weight.device
    network.to(device)
    try:
        yield
    finally:
        network.to(home)
