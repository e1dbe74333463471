# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Progress bars of training, validation, evaluation and inference; log lines where there is no terminal."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from tqdm import tqdm

from segan_monai.processes import process_rank

logger = logging.getLogger(__name__)


class RunProgress(ProgressBar):
    """Ignite's ``ProgressBar`` with the loss and the remaining time of the whole run (training), or the current case.

    Beside a bar, the loss is that of the last iteration in which the trainer looks at its terms, see
    ``PhasedTrainer.look_every``.

    The bar itself shows the remaining time of the epoch, validation, evaluation or inference. If stderr is not a
    terminal, such as in a pipe or a batch job, a log line says the same, at most every ``log_seconds``; short epochs
    are silent, because their end is logged. Only rank 0 shows progress. Attach this handler to a trainer before others,
    so that the bar closes before the validation's bar opens.

    Args:
        desc: title of the bar.
        log_seconds: seconds between log lines without a terminal.
        **settings: arguments of ``tqdm``.
    """

    def __init__(self, desc: str, log_seconds: float = 30.0, **settings: Any) -> None:
        super().__init__(desc=desc, **settings)
        self.desc = desc
        self.log_seconds = log_seconds
        self.epoch_started = self.logged = 0.0
        self.started = 0.0
        self.iterations_before = 0
        self.loss = ""

    def attach(self, engine: Engine, **settings: Any) -> None:
        """Register with a trainer or an evaluator."""
        if process_rank() > 0:
            return
        if not sys.stderr.isatty():
            engine.add_event_handler(Events.EPOCH_STARTED, self.start_log)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.log)
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        super().attach(engine, output_transform=lambda output: self.shown(engine), **settings)

    def start_log(self, engine: Engine) -> None:
        """Start the time of an epoch and, once, of the run."""
        self._start_run(engine)
        self.epoch_started = self.logged = time.perf_counter()

    def log(self, engine: Engine) -> None:
        """Log how much of the epoch is done, if the last line is old enough."""
        now, length = time.perf_counter(), engine.state.epoch_length
        if length is None or now - self.logged < self.log_seconds:
            return
        self.logged = now
        done = (engine.state.iteration - 1) % length + 1
        left = (now - self.epoch_started) / done * (length - done)
        values = "".join(f", {name} {value}" for name, value in self.named(engine).items())
        epoch = f" epoch {engine.state.epoch}/{engine.state.max_epochs}," if "loss" in values else ""
        logger.info("%s:%s %d of %d, %s left%s", self.desc, epoch, done, length, tqdm.format_interval(left), values)

    def _start_run(self, engine: Engine) -> None:
        if not self.started:
            self.started, self.iterations_before = time.perf_counter(), engine.state.iteration

    def start(self, engine: Engine) -> None:
        """Open the bar before the first iteration, which may be slow and is included in all estimates."""
        self._start_run(engine)
        self._reset(engine.state.epoch_length)

    def _reset(self, pbar_total: int | None) -> None:
        self.pbar = self.pbar_cls(total=pbar_total, leave=self.persist, bar_format=self.bar_format, **self.tqdm_kwargs)

    def shown(self, engine: Any) -> dict[str, str]:
        """Return the values shown beside the bar, with the loss of the last iteration in which the trainer looks."""
        return self.named(engine, engine.state.iteration % getattr(engine, "look_every", 1) == 0)

    def named(self, engine: Any, fresh: bool = True) -> dict[str, str]:
        """Return the values of an iteration by name.

        Args:
            engine: the trainer or evaluator.
            fresh: whether to read the loss, for which the host waits for the GPU.
        """
        output = engine.state.output
        if isinstance(output, dict) and "loss" in output:
            state = engine.state
            done, whole = state.iteration - self.iterations_before, state.max_epochs * state.epoch_length
            left = (time.perf_counter() - self.started) / max(done, 1) * (whole - state.iteration)
            if fresh or not self.loss:
                self.loss = f"{float(output['loss']):.3g}"
            return {"loss": self.loss, "whole run": f"{tqdm.format_interval(left)} left"}
        cases = [str(item["case"]) for item in engine.state.batch if "case" in item]
        return {"case": cases[-1]} if cases else {}
