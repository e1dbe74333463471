# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""All handlers that every training of this project has, as one item of ``train#handlers``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ignite.engine import Engine
from monai.engines import Evaluator
from torch import nn

from segan_monai.handlers.epoch_log import EpochLog
from segan_monai.handlers.live_view import LiveView
from segan_monai.handlers.lr_schedule import LrSchedule
from segan_monai.handlers.run_checkpoint import RunCheckpoint
from segan_monai.handlers.run_progress import RunProgress
from segan_monai.handlers.run_report import RunReport
from segan_monai.handlers.tracked_run import TrackedRun
from segan_monai.handlers.validate import FinalValidationHandler


class TrainingHandlers:
    """Progress bar, validation, learning-rate schedules, checkpoints, log, live view, report and MLflow of a training.

    They are attached in the order in which each finds what it needs, and at the end of an epoch run in that order:

    1. `RunProgress`, first, so that its bar makes room for that of the validation;
    2. `FinalValidationHandler`, which finds the best metric;
    3. `LrSchedule`, one per schedule;
    4. `RunCheckpoint`, which saves the best metric and the schedules as the next epoch finds them;
    5. `EpochLog`, which averages the loss terms;
    6. `LiveView`, which shows the averages and what the validation found;
    7. `RunReport`, of what the others have written;
    8. `TrackedRun`, if `mlflow` is given, which sends the report too.

    Handlers of one's own are further items of the list: before this one to run before the validation, behind it to find
    everything written.

    Args:
        output_dir: the run's folder.
        ckpt_dir: gets ``model.pt``, see `RunCheckpoint`.
        network: the deployed network, for ``model.pt``; in ``last.pt`` it is called ``network``.
        objects: what else ``last.pt`` keeps, by name: whatever has ``state_dict``.
        lr_schedulers: moved on after every epoch, in this order.
        validator: the evaluator of the validation cases.
        regions: names of the K regions, for pictures.
        modalities: names of the image's channels, for pictures.
        val_interval: epochs between validations.
        resume: go on from ``last.pt``.
        lr_step_on: from the trainer to the arguments of the schedules' ``step``, such as the metric that
            `ReduceLROnPlateau` needs; none by default.
        live_cases: cases in the live view; 0 for scalars alone.
        mlflow: where MLflow keeps the run, see `TrackedRun`; None for nowhere.
        experiment: name of MLflow's experiment; of a path, the last part.
        settings: parameters of MLflow's run.

    Raises:
        ConfigError: when attached, `mlflow` cannot be used; when the training starts, there is nothing to resume.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        ckpt_dir: str | os.PathLike[str],
        network: nn.Module,
        objects: Mapping[str, Any],
        lr_schedulers: Sequence[Any],
        validator: Evaluator,
        regions: Sequence[str],
        modalities: Sequence[str],
        val_interval: int = 1,
        resume: bool = False,
        lr_step_on: Callable[[Engine], Any] = lambda trainer: (),
        live_cases: int = 2,
        mlflow: str | os.PathLike[str] | None = None,
        experiment: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.handlers: list[Any] = [
            RunProgress("training"),
            FinalValidationHandler(val_interval, validator),
            *(LrSchedule(schedule, print_lr=False, step_transform=lr_step_on) for schedule in lr_schedulers),
            RunCheckpoint(output_dir, ckpt_dir, network, {"network": network, **objects}, validator, resume),
            EpochLog(output_dir, validator),
            LiveView(output_dir, validator, regions, modalities, live_cases),
            RunReport(output_dir),
        ]
        if mlflow:
            self.handlers.append(TrackedRun(mlflow, output_dir, validator, experiment, settings or {}))

    def attach(self, engine: Engine) -> None:
        """Register all with the trainer."""
        for handler in self.handlers:
            handler.attach(engine)
