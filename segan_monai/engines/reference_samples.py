# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The labelled samples of a batch with which a critic compares unlabelled images."""

from __future__ import annotations

import logging
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from segan_monai.engines.accumulation import repeated
from segan_monai.processes import any_rank, process_rank

logger = logging.getLogger(__name__)


class ReferenceSamples:
    """Chooses the samples that were drawn without regard to their label, and counts iterations without any.

    All processes must have the same loss terms, and the parts of a batch too. So an iteration has references only if
    every process has one in its batch. The parts of a batch get the same number of them, in turn if there are fewer.

    If more than half of the iterations of an epoch have none, a warning says so, once.

    Attributes:
        found: whether the current iteration has references.
    """

    def __init__(self) -> None:
        self.found = False
        self._with, self._asked, self._warned = 0, 0, False

    def attach(self, engine: Engine) -> None:
        """Register with the trainer, which tells the end of an epoch."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._count)

    def choose(self, uniform: Any, parts: int) -> Tensor | None:
        """Choose the references of an iteration; all processes must call it.

        Args:
            uniform: (B,), false for samples that were chosen by their label; None if there are none of these.
            parts: number of parts of the batch.

        Returns:
            Indices of the references, a multiple of ``parts``; None if all samples are, or none is found.
        """
        rows = None if uniform is None else torch.as_tensor(uniform).nonzero().flatten()
        self.found = rows is None or not any_rank(not len(rows))
        self._asked += 1
        self._with += self.found
        return repeated(rows, parts) if self.found and rows is not None else None

    def _count(self, engine: Engine) -> None:
        found, asked = self._with, self._asked
        self._with = self._asked = 0
        if self._warned or 2 * found >= asked:
            return
        self._warned = True
        if process_rank() == 0:
            logger.warning(
                "the critic saw unlabelled images in %d of %d iterations of epoch %d. In the others, a process had no "
                "labelled sample that was drawn without regard to its label. Raise batch_size, or lower "
                "foreground_probability.",
                found,
                asked,
                engine.state.epoch,
            )
