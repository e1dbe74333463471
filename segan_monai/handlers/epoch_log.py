# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""One line an epoch: every loss term by name, what the validation found, how long it took."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)


class EpochLog:
    """Averages the loss terms of an epoch, logs them in one line and appends them to ``history.csv``.

    A term that is NaN, or missing, in an iteration is averaged over the others: not every batch has every domain.
    The averages also become ``engine.state.metrics``, where TensorBoard and other handlers find them. Attach it after
    validation and before handlers that read the metrics.

    Of several processes, the first one writes the file, with its own averages.

    Args:
        output_dir: gets ``history.csv`` with the columns ``epoch,seconds,name,value``: a row an epoch and name.
        validator: its metrics are named in the line of an epoch that was validated.
    """

    def __init__(self, output_dir: str, validator: Engine | None = None) -> None:
        self.file = Path(output_dir) / "history.csv"
        self.validator = validator
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, torch.Tensor] = {}
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Forget the last epoch."""
        self.sums, self.counts = {}, {}
        self.started = time.perf_counter()

    def add(self, engine: Engine) -> None:
        """Add the terms of one iteration, without waiting for the device."""
        output: Any = engine.state.output
        for name, value in output["terms"].items():
            number = ~torch.isnan(value)
            self.sums[name] = self.sums.get(name, 0) + torch.where(number, value, 0)
            self.counts[name] = self.counts.get(name, 0) + number

    def write(self, engine: Engine) -> None:
        """Log the epoch that ended."""
        epoch, seconds = engine.state.epoch, time.perf_counter() - self.started
        values = {name: float(total / self.counts[name]) for name, total in self.sums.items() if self.counts[name]}
        engine.state.metrics.update(values)
        if idist.get_rank() > 0:
            return
        text = [f"epoch {epoch}/{engine.state.max_epochs}", *(f"{name} {value:.4g}" for name, value in values.items())]
        if self.validator is not None and self.validator.state.epoch == epoch and self.validator.state.metrics:
            # Ignite also keeps the dictionary of a metric with several values, beside each of them.
            metrics = self.validator.state.metrics.items()
            found = {name: float(value) for name, value in metrics if not isinstance(value, dict)}
            values.update(found)
            text += [f"{name} {value:.4f}" for name, value in found.items()]
            text.append(
                f"best {self.validator.state.best_metric:.4f} in epoch {self.validator.state.best_metric_epoch}"
            )
        logger.info("  ".join([*text, f"{seconds:.1f} s"]))
        new = not self.file.is_file()
        with self.file.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(["epoch", "seconds", "name", "value"])
            writer.writerows([epoch, f"{seconds:.3f}", name, f"{value:.6g}"] for name, value in values.items())
