# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Progress bars of training, validation, evaluation and inference."""

from __future__ import annotations

import sys
import time
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from tqdm import tqdm

from segan_monai.processes import process_rank


class RunProgress(ProgressBar):
    """Ignite's ``ProgressBar`` with the loss and the remaining time of the whole run (training), or the current case.

    The bar itself shows the remaining time of the epoch, validation, evaluation or inference. It is shown only if
    stderr is a terminal, and only by rank 0; otherwise it costs no time. Attach it to a trainer before other handlers,
    so that it closes before the validation's bar opens.

    Args:
        desc: title of the bar.
        **settings: arguments of ``tqdm``.
    """

    def __init__(self, desc: str, **settings: Any) -> None:
        super().__init__(desc=desc, **settings)
        self.started = 0.0
        self.iterations_before = 0

    def attach(self, engine: Engine, **settings: Any) -> None:
        """Register with a trainer or an evaluator."""
        if process_rank() > 0 or not sys.stderr.isatty():
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        super().attach(engine, output_transform=lambda output: self.named(engine), **settings)

    def start(self, engine: Engine) -> None:
        """Open the bar before the first iteration, which may be slow and is included in all estimates."""
        if not self.started:
            self.started, self.iterations_before = time.perf_counter(), engine.state.iteration
        self._reset(engine.state.epoch_length)

    def _reset(self, pbar_total: int | None) -> None:
        self.pbar = self.pbar_cls(total=pbar_total, leave=self.persist, bar_format=self.bar_format, **self.tqdm_kwargs)

    def named(self, engine: Any) -> dict[str, str]:
        """Return the values shown beside the bar after an iteration."""
        output = engine.state.output
        if isinstance(output, dict) and "loss" in output:
            state = engine.state
            done, whole = state.iteration - self.iterations_before, state.max_epochs * state.epoch_length
            left = (time.perf_counter() - self.started) / max(done, 1) * (whole - state.iteration)
            return {"loss": f"{float(output['loss']):.3g}", "whole run": f"{tqdm.format_interval(left)} left"}
        cases = [str(item["case"]) for item in engine.state.batch if "case" in item]
        return {"case": cases[-1]} if cases else {}
