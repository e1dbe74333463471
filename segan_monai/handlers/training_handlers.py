# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Composite of all handlers used in training, as one item of ``train#handlers``."""

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
    """Progress bar, validation, learning-rate schedules, checkpoints, log, live view, report and MLflow tracking.

    At the end of an epoch, the handlers run in this order, because each needs the results of those before it:

    1. ``RunProgress``, which closes its bar before that of the validation opens;
    2. ``FinalValidationHandler``, which determines the best metric;
    3. ``LrSchedule``, one per scheduler;
    4. ``RunCheckpoint``, which saves the best metric and the schedulers' state for the next epoch;
    5. ``EpochLog``, which averages the loss terms;
    6. ``LiveView``, which shows the averages and the validation metrics;
    7. ``RunReport``, which shows the files of the other handlers;
    8. ``TrackedRun``, if ``mlflow`` is given, which also sends the report.

    Add your own handlers to the list: before this item to run them before validation, or after it to run them when all
    files are written.

    Args:
        output_dir: the run's folder.
        ckpt_dir: receives ``model.pt``, see ``RunCheckpoint``.
        network: the deployed network, for ``model.pt``; its name in ``last.pt`` is ``network``.
        objects: further objects with ``state_dict`` to save in ``last.pt``, by name.
        lr_schedulers: schedulers to step after every epoch, in this order.
        validator: evaluator of the validation cases.
        regions: names of the K regions, for pictures.
        modalities: names of the image's channels, for pictures.
        val_interval: epochs between validations.
        resume: resume from ``last.pt``.
        lr_step_on: function from the trainer to the arguments of the schedulers' ``step``, such as the metric for
            ``ReduceLROnPlateau``; by default, no arguments.
        live_cases: number of cases in the live view; 0 for scalars only.
        mlflow: MLflow server, database or folder, see ``TrackedRun``; None disables tracking.
        experiment: name of the MLflow experiment; of a path, the last part is used.
        settings: parameters of the MLflow run.
        trained_settings: what the network depends on, see ``RunCheckpoint``.
        allow_other_settings: settings that a resumed training may change, see ``RunCheckpoint``.

    Raises:
        ConfigError: When attached, if ``mlflow`` cannot be used; when training starts, if there is nothing to resume.
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
        trained_settings: Mapping[str, Any] | None = None,
        allow_other_settings: Sequence[str] | str = (),
    ) -> None:
        checkpoint = RunCheckpoint(
            output_dir,
            ckpt_dir,
            network,
            {"network": network, **objects},
            validator,
            resume,
            trained_settings,
            allow_other_settings,
        )
        self.handlers: list[Any] = [
            RunProgress("training"),
            FinalValidationHandler(val_interval, validator),
            *(LrSchedule(schedule, print_lr=False, step_transform=lr_step_on) for schedule in lr_schedulers),
            checkpoint,
            EpochLog(output_dir, validator),
            LiveView(output_dir, validator, regions, modalities, live_cases),
            RunReport(output_dir),
        ]
        if mlflow:
            self.handlers.append(TrackedRun(mlflow, output_dir, validator, experiment, settings or {}))

    def attach(self, engine: Engine) -> None:
        """Register all handlers with the trainer."""
        for handler in self.handlers:
            handler.attach(engine)
