# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Average of gradients over processes, while the backward pass runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import ignite.distributed as idist
from torch import Tensor
from torch.optim import Optimizer

from segan_monai.engines.parameters import weights_of
from segan_monai.processes import begin_average, broadcast_from_rank0

MESSAGE_BYTES = 4 * 2**20
"""Size at which a message is sent: SegAN's segmentor of base 64 has 19 MB of gradients, so five messages."""


class GradientExchange:
    """Averages the gradients of one phase over all processes.

    The first backward pass of a phase records the order in which gradients arrive, which rank 0 tells to all. They are
    then sent in messages of a few MiB, each as soon as its gradients are there, so that a GPU computes the next ones
    meanwhile. All processes send the same messages in the same order, whatever the order of arrival. Each weight must
    have a gradient in all processes or in none.

    In a run of one process it does nothing.

    Args:
        optimizer: optimizer of the weights that the phase trains.
        message_bytes: size at which a message is sent.
    """

    def __init__(self, optimizer: Optimizer, message_bytes: int = MESSAGE_BYTES) -> None:
        self.weights = weights_of(optimizer)
        self.message_bytes = message_bytes
        self.planned = False
        self.messages: list[list[int]] = []
        self._message_of: dict[int, int] = {}
        self._active = False
        self._arrived: list[int] = []
        self._missing: list[int] = []
        self._under_way: list[Callable[[], None]] = []
        for index, weight in enumerate(self.weights if idist.get_world_size() > 1 else ()):
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(partial(self._arrive, index))

    @contextmanager
    def during_backward(self) -> Iterator[None]:
        """Send gradients that become complete in this block: the phase's last backward pass."""
        self._active = True
        self._arrived, self._under_way = [], []
        self._missing = [len(message) for message in self.messages]
        try:
            yield
        finally:
            self._active = False

    def complete(self, more: Sequence[Tensor] = ()) -> None:
        """Send the gradients that are left, with more tensors in the same message, and store all averages in place.

        Args:
            more: tensors of the gradients' type, averaged too.

        Raises:
            ProcessLostError: another process has ended.
        """
        while len(self._under_way) < len(self.messages):
            self._send()
        left = [index for index in range(len(self.weights)) if index not in self._message_of]
        self._under_way.append(begin_average([*self._gradients(left), *more]))
        under_way, self._under_way = self._under_way, []  # they hold the gradients
        arrived, self._arrived = self._arrived, []
        for store in under_way:
            store()
        if not self.planned and arrived:
            self._plan(broadcast_from_rank0(arrived))

    def _arrive(self, index: int, weight: Tensor) -> None:
        if not self._active:
            return
        self._arrived.append(index)
        if index in self._message_of:
            self._missing[self._message_of[index]] -= 1
        while len(self._under_way) < len(self.messages) and not self._missing[len(self._under_way)]:
            self._send()

    def _send(self) -> None:
        self._under_way.append(begin_average(self._gradients(self.messages[len(self._under_way)])))

    def _gradients(self, indices: Sequence[int]) -> list[Tensor]:
        return [gradient for index in indices if (gradient := self.weights[index].grad) is not None]

    def _plan(self, order: Sequence[int]) -> None:
        """Divide the gradients into messages; those after the last full one are left to ``complete``."""
        self.planned = True
        message: list[int] = []
        size = 0
        for index in order:
            message.append(index)
            size += self.weights[index].numel() * self.weights[index].element_size()
            if size >= self.message_bytes:
                self.messages.append(message)
                message, size = [], 0
        self._message_of = {index: number for number, message in enumerate(self.messages) for index in message}
