# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Validation that is never forgotten after the last epoch."""

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import ValidationHandler


class FinalValidationHandler(ValidationHandler):
    """MONAI's `ValidationHandler`, run every `interval` epochs and also after the last one.

    Without the last one, a run whose epochs are no multiple of `interval` would end unmeasured, and a run shorter than
    `interval` without a best model.

    Args:
        interval: epochs between validations.
        validator: the evaluator to run.
    """

    def __init__(self, interval: int, validator: Evaluator) -> None:
        super().__init__(interval=interval, validator=validator, epoch_level=True)

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        due = Events.EPOCH_COMPLETED(
            event_filter=lambda trainer, epoch: epoch % self.interval == 0 or epoch == trainer.state.max_epochs
        )
        engine.add_event_handler(due, self)
