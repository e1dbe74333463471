# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Parts of a batch, whose gradients are accumulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Part(NamedTuple):
    """Part of a batch.

    Attributes:
        tensors: the part of each tensor, None for those that the batch does not have.
        share: number of its samples divided by that of the batch.
        last: whether it is the last part.
    """

    tensors: tuple[Any, ...]
    share: float
    last: bool


def split(tensors: Sequence[Tensor | None], steps: int) -> list[Part]:
    """Split tensors along their first axis into parts of almost equal size.

    Args:
        tensors: tensors of a batch, the first one with its samples; None for those that the batch does not have.
        steps: number of parts; fewer, if a tensor has fewer samples.

    Examples:
        >>> [(part.tensors[0].tolist(), part.share) for part in split([torch.tensor([1, 2, 3, 4])], 2)]
        [([1, 2], 0.5), ([3, 4], 0.5)]
    """
    steps = min(steps, *(len(tensor) for tensor in tensors if tensor is not None))
    if steps == 1:
        return [Part(tuple(tensors), 1.0, True)]
    columns = [[None] * steps if tensor is None else tensor.tensor_split(steps) for tensor in tensors]
    rows = [*zip(*columns, strict=True)]
    samples = [len(row[0]) for row in rows]
    return [Part(row, samples[i] / sum(samples), i == steps - 1) for i, row in enumerate(rows)]


def repeated(rows: Tensor, parts: int) -> Tensor:
    """Return indices, repeated until each of several parts gets the same number of them.

    Examples:
        >>> repeated(torch.tensor([4, 7, 9]), 2)
        tensor([4, 7, 9, 4])
        >>> repeated(torch.tensor([5]), 3)
        tensor([5, 5, 5])
    """
    each = -(-len(rows) // parts)
    return rows[torch.arange(each * parts, device=rows.device) % len(rows)]


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return the tensors of all parts as those of the batch; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


class TwoPasses:
    """Outputs that two phases need: the first one as numbers, the second one with their gradient.

    Those of a single part are computed once, and their graph is kept for the second phase. Several parts must not keep
    their graphs at the same time, so they are computed without them first, and again in the second phase: with the same
    random draws, and with running statistics updated once.

    Args:
        function: called with the tensors of a part.
        parts: parts of the batch.
        network: network that the function applies, which does not change between the phases.
        device: its device.
    """

    def __init__(self, function: Callable, parts: Sequence[Part], network: nn.Module, device: torch.device) -> None:
        self.function = function
        self.parts = parts
        self.network = network
        self.devices = [device] if device.type == "cuda" else []
        self.first_of: dict[int, Any] = {}
        self.random_states: dict[int, list[Tensor]] = {}

    def first(self) -> Iterator[tuple[Part, Any]]:
        """Yield each part with its output."""
        for index, part in enumerate(self.parts):
            if len(self.parts) == 1:
                self.first_of[index] = self.function(*part.tensors)
                yield part, self.first_of[index]
                continue
            cuda = [torch.cuda.get_rng_state(device) for device in self.devices]
            self.random_states[index] = [torch.get_rng_state(), *cuda]
            with torch.no_grad(), buffers_unchanged(self.network):
                found = self.function(*part.tensors)
            yield part, found

    def second(self) -> Iterator[tuple[Part, Any]]:
        """Yield each part with its output, which has a gradient; the first pass may have been left out."""
        for index, part in enumerate(self.parts):
            if index in self.first_of:
                yield part, self.first_of[index]
            elif index not in self.random_states:
                yield part, self.function(*part.tensors)
            else:
                with torch.random.fork_rng(self.devices):
                    of_cpu, *of_cuda = self.random_states[index]
                    torch.set_rng_state(of_cpu)
                    for device, state in zip(self.devices, of_cuda, strict=True):
                        torch.cuda.set_rng_state(state, device)
                    found = self.function(*part.tensors)
                yield part, found


@contextmanager
def buffers_unchanged(network: nn.Module) -> Iterator[None]:
    """Restore the buffers of a network after the block, such as the running statistics of batch norm."""
    buffers = [*network.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(old)
