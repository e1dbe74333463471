# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What to do when the accelerator has not enough memory for a volume: less at a time, then the CPU."""

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
    """Try with half as many slices or windows at a time, down to one, then on the CPU; each step is logged.

    Args:
        apply: does all of the work, with so many at a time on this device.
        batch_size: to begin with.
        device: to begin with.
        what: is counted, for the log.

    Raises:
        torch.OutOfMemoryError: there is not even memory for one at a time on the CPU.
    """
    size = batch_size
    while True:
        try:
            return apply(size, device)
        except torch.OutOfMemoryError:
            if size == 1 and device.type == "cpu":
                raise
        # here, and not above, the failed attempt's tensors are no longer held by the error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size > 1:
            size //= 2
            logger.warning("out of memory on %s: trying again with %d %s at a time", device, size, what)
        else:
            size, device = batch_size, torch.device("cpu")
            logger.warning("out of memory with one of the %s at a time: trying again on the CPU, slowly", what)


@contextmanager
def moved(network: Callable[..., Any], device: torch.device) -> Iterator[None]:
    """Have a network's weights on a device for the time of the block."""
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
