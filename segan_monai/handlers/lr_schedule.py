# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules that may start before their optimizer."""

from __future__ import annotations

import warnings

from ignite.engine import Engine
from monai.handlers import LrScheduleHandler


class LrSchedule(LrScheduleHandler):
    """MONAI's ``LrScheduleHandler`` without PyTorch's warning that the optimizer has not taken a step.

    The schedule of a critic that joins later, or of a discriminator during warm-up, intentionally starts in the first
    epoch of a run, which has a higher number if the trainer continues an earlier one.

    Args:
        lr_scheduler: scheduler to step after every epoch.
        step_transform: function from the trainer to the arguments of the scheduler's ``step``; None skips a step.
    """

    def __call__(self, engine: Engine) -> None:
        """Step the scheduler, unless the arguments of the step are None."""
        if self.step_transform(engine) is None:
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            super().__call__(engine)
