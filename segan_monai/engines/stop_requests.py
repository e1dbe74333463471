# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Stop of a training after an iteration, if a signal has reached any of its processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ignite.distributed as idist
import torch
from ignite.engine import Events
from torch import Tensor

from segan_monai.engines.stop_signals import StopSignals
from segan_monai.processes import any_rank

if TYPE_CHECKING:
    from segan_monai.engines.phased import PhasedTrainer


class StopRequests:
    """Stops a trainer after an iteration, if a signal has reached any process of the run.

    The messages with gradients tell processes of each other's signals, see ``told``; at the end of an epoch they ask
    each other.

    Args:
        trainer: the trainer; its losses are read before a stop.

    Attributes:
        signals: the signals of this process.
    """

    def __init__(self, trainer: PhasedTrainer) -> None:
        self.trainer = trainer
        self.signals = StopSignals()
        self._share = torch.zeros(())  # of the processes that a signal has reached
        self._known: tuple[int, bool] = (-1, False)

    def attach(self) -> None:
        """Register with the trainer; after its other handlers, so that they have completed the iteration or epoch."""
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._stop_if_any, at_epoch_end=False)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self._stop_if_any, at_epoch_end=True)

    def told(self) -> Tensor:
        """Return 1 if a signal has reached this process, else 0: a scalar to be averaged in place over processes."""
        self._share = torch.full((), float(bool(self.signals.received)), device=self.trainer.state.device)
        return self._share

    def any(self) -> bool:
        """Return whether to stop; the same value for all handlers and processes within an iteration."""
        number = self.trainer.state.iteration
        if self._known[0] != number:
            self._known = number, self._of_any_process(number)
            if self._known[1]:
                self.trainer.losses.look()  # before a checkpoint is written
        return self._known[1]

    def _of_any_process(self, number: int) -> bool:
        """Return whether a signal has reached any process; within an epoch, as the last gradients brought it along."""
        if idist.get_world_size() == 1 or number % (self.trainer.state.epoch_length or 1) == 0:
            return any_rank(bool(self.signals.received))  # a signal may have come since, during validation
        return number % self.trainer.look_every == 0 and bool(self._share > 0)

    def _stop_if_any(self, at_epoch_end: bool) -> None:
        """Stop after an iteration if requested; after the last one of an epoch, only once its handlers have run."""
        state = self.trainer.state
        ended = state.iteration % (state.epoch_length or 1) == 0
        complete = ended and state.epoch == state.max_epochs
        if ended == at_epoch_end and not complete and self.any():
            self.trainer.terminate(skip_completed=True)
