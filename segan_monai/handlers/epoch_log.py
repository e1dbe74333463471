# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Log of loss terms, validation metrics and time per epoch."""

from __future__ import annotations

import csv
import io
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pandas as pd
import torch
from ignite.engine import Engine, Events

from segan_monai.files import append_line, whole_file
from segan_monai.processes import gather_objects
from segan_monai.report.history import LAYERS, TRAINING, VALIDATION, with_phases

logger = logging.getLogger(__name__)


class EpochLog:
    """Averages the loss terms of an epoch, logs them in one line and appends them to ``history.csv``.

    Iterations in which a term is NaN or missing are excluded from its average, because not every batch has every
    domain. The averages are also stored in ``engine.state.metrics`` for TensorBoard and other handlers. Attach this
    handler after validation and before handlers that read the metrics.

    ``history.csv`` has the columns ``epoch,seconds,name,value`` and one row per epoch and name:

    - ``training/<term>`` and ``validation/<metric>``, as in TensorBoard;
    - ``layers/loss_<i>`` and ``layers/gradient_<i>``: share of each layer of SegAN's critics, see ``LayerShares``;
    - ``peak_memory_mib``, of the device if it is a GPU, else of the process;
    - in epoch 0, the parameter count of each network: ``parameters_network`` etc.

    ``seconds`` is the training time of the epoch, without validation. Under ``torchrun``, rank 0 writes averages over
    the iterations of all ranks. Names in files of earlier versions receive their prefixes when the run is resumed.

    Args:
        output_dir: receives ``history.csv``.
        validator: evaluator whose metrics are logged after each validation.
    """

    def __init__(self, output_dir: str | os.PathLike[str], validator: Engine | None = None) -> None:
        self.file = Path(output_dir) / "history.csv"
        self.validator = validator
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, torch.Tensor] = {}
        self.names: set[str] = set()  # of the last epoch
        self.started = self.ended = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self.name_by_phase)
        engine.add_event_handler(Events.STARTED, self.count_parameters)
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def name_by_phase(self) -> None:
        """Add the prefixes to the names in a file of an earlier version; the values are not changed."""
        if idist.get_rank() > 0 or not self.file.is_file():
            return
        try:
            written = pd.read_csv(self.file, dtype={"seconds": str, "value": str}, keep_default_na=False)
            named = with_phases(written)
        except (ValueError, KeyError) as error:  # training does not need earlier entries
            logger.warning("%s cannot be read (%s); new epochs are appended to it", self.file, error)
            return
        if named is not written:
            with whole_file(self.file) as file:
                named.to_csv(file, index=False, lineterminator="\r\n")

    def count_parameters(self, engine: Engine) -> None:
        """Write the parameter count of each network."""
        networks = {"network": getattr(engine, "network", None), **getattr(engine, "adversaries", {})}
        counts = {
            f"parameters_{name}": sum(p.numel() for p in network.parameters())
            for name, network in networks.items()
            if network is not None
        }
        if counts and idist.get_rank() == 0 and not self.file.is_file():
            self._append(0, 0.0, counts)

    def start(self, engine: Engine) -> None:
        """Reset sums, counts and timer."""
        self.sums, self.counts = {}, {}
        self.started = time.perf_counter()

    def add(self, engine: Engine) -> None:
        """Add the terms of one iteration without synchronizing the device."""
        output: Any = engine.state.output
        layers = {LAYERS + name: value for name, value in output.get("layers", {}).items()}
        for name, value in {**output["terms"], **layers}.items():
            number = ~torch.isnan(value)
            self.sums[name] = self.sums.get(name, 0) + torch.where(number, value, 0)
            self.counts[name] = self.counts.get(name, 0) + number
        self.ended = time.perf_counter()

    def write(self, engine: Engine) -> None:
        """Log the completed epoch and append it to ``history.csv``."""
        epoch, seconds = engine.state.epoch, self.ended - self.started
        own = {name: (float(total), int(self.counts[name])) for name, total in self.sums.items()}
        of_all: dict[str, list[tuple[float, int]]] = {}
        for of_process in gather_objects(own):
            for name, part in of_process.items():
                of_all.setdefault(name, []).append(part)
        found = {name: [sum(column) for column in zip(*parts, strict=True)] for name, parts in of_all.items()}
        values = {name: total / count for name, (total, count) in found.items() if count}
        for name in self.names - values.keys():  # a term that has ended, such as that of a warm-up
            engine.state.metrics.pop(name, None)
        engine.state.metrics.update(values)
        self.names = set(values)
        if idist.get_rank() > 0:
            return
        layers = {name: value for name, value in values.items() if name.startswith(LAYERS)}
        terms = {name: value for name, value in values.items() if name not in layers}
        text = [f"epoch {epoch}/{engine.state.max_epochs}", *(f"{name} {value:.4g}" for name, value in terms.items())]
        named = {TRAINING + name: value for name, value in terms.items()} | layers
        if self.validator is not None and self.validator.state.epoch == epoch and self.validator.state.metrics:
            # Ignite stores a metric with several values both as a dict and as separate values.
            metrics = self.validator.state.metrics.items()
            validated = {name: float(value) for name, value in metrics if not isinstance(value, dict)}
            named |= {VALIDATION + name: value for name, value in validated.items()}
            text += [f"{name} {value:.4f}" for name, value in validated.items()]
            text.append(
                f"best {self.validator.state.best_metric:.4f} in epoch {self.validator.state.best_metric_epoch}"
            )
        logger.info("  ".join([*text, f"{seconds:.1f} s"]))
        named["peak_memory_mib"] = peak_memory_mib(getattr(engine.state, "device", None))
        self._append(epoch, seconds, named)

    def _append(self, epoch: int, seconds: float, values: Mapping[str, float]) -> None:
        rows = [] if self.file.is_file() else [["epoch", "seconds", "name", "value"]]
        rows += [[str(epoch), f"{seconds:.3f}", name, f"{value:.9g}"] for name, value in values.items()]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        append_line(self.file, text.getvalue().rstrip("\n"))


def peak_memory_mib(device: torch.device | None) -> float:
    """Return the peak memory in MiB, of the device if it is a GPU, else of this process."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return float("nan")  # not available in the standard library
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
