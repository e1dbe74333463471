# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Validation at intervals and after the last epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import ValidationHandler
from torch import nn

from segan_monai.finite import NonFiniteOutputError

logger = logging.getLogger(__name__)


@contextmanager
def _validating(validator: Any, network: nn.Module | None) -> Iterator[None]:
    """Give the validator another network inside the block; None for its own."""
    if network is None:
        yield
        return
    own = validator.network
    validator.network = network
    try:
        yield
    finally:
        validator.network = own


class FinalValidationHandler(ValidationHandler):
    """MONAI's ``ValidationHandler``, run every ``interval`` epochs and also after the last epoch.

    The last validation matters if the number of epochs is not a multiple of ``interval``: the final weights would not
    be measured, and a run shorter than ``interval`` would have no best model.

    A key metric that is not finite is never the best one. MONAI would keep a NaN from the first validation forever,
    because no later value is greater than NaN.

    If the trainer averages weights (``ema_decay``), the averaged network is validated.

    Args:
        interval: epochs between validations.
        validator: the evaluator to run.

    Raises:
        NonFiniteOutputError: During training, if the network's output for a case is NaN or infinite.
    """

    def __init__(self, interval: int, validator: Evaluator) -> None:
        super().__init__(interval=interval, validator=validator, epoch_level=True)

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        due = Events.EPOCH_COMPLETED(
            event_filter=lambda trainer, epoch: epoch % self.interval == 0 or epoch == trainer.state.max_epochs
        )
        engine.add_event_handler(due, self)

    def __call__(self, engine: Engine) -> None:
        """Run the validation."""
        state = self.validator.state
        best = state.best_metric, state.best_metric_epoch
        try:
            with _validating(self.validator, getattr(engine, "averaged", None)):
                super().__call__(engine)
        except NonFiniteOutputError as error:
            raise NonFiniteOutputError(
                f"validation after epoch {engine.state.epoch}: {error} No checkpoint was written after this epoch; "
                "earlier ones are kept, and --resume true resumes from them."
            ) from error
        if state.best_metric_epoch == engine.state.epoch and not math.isfinite(state.best_metric):
            logger.warning(
                "validation after epoch %d: the key metric is %s, which is never used as the best value",
                engine.state.epoch,
                float(state.best_metric),
            )
            state.best_metric, state.best_metric_epoch = best
