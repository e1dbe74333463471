# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A learning-rate schedule that may begin before its optimizer does."""

from __future__ import annotations

import warnings

from ignite.engine import Engine
from monai.handlers import LrScheduleHandler


class LrSchedule(LrScheduleHandler):
    """MONAI's `LrScheduleHandler`, without PyTorch's warning that the optimizer has not taken a step yet.

    The schedule of a critic that joins later, or of a discriminator during warm-up, goes on from the first epoch, which
    is no mistake. PyTorch warns at the first step of a schedule only, so the filter is set for that one alone.

    Args:
        lr_scheduler: moved on after every epoch.
        step_transform: from the trainer to the arguments of the schedule's ``step``.
    """

    def __call__(self, engine: Engine) -> None:
        """Move the schedule on by one epoch."""
        if engine.state.epoch > 1:
            super().__call__(engine)
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            super().__call__(engine)
