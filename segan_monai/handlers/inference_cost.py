# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""FLOP count per slice during evaluation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch.utils.flop_counter import FlopCounterMode

from segan_monai.metrics.summary import write_summary
from segan_monai.processes import gather_objects


class InferenceCost:
    """Counts the floating-point operations of an evaluator and adds ``gflop_per_slice`` to ``summary.json``.

    A multiply-add counts as two operations. Only operations that are executed are counted: in a two-stage network, the
    second stage runs once per RoI found. Attach this handler after ``EvaluationReport``, which writes the summary.

    Args:
        output_dir: folder that contains ``summary.json``.
        axis: slicing axis of the volumes (H, W, D).
    """

    def __init__(self, output_dir: str | os.PathLike[str], axis: int = 2) -> None:
        self.file = Path(output_dir) / "summary.json"
        self.axis = axis
        self.counter: FlopCounterMode | None = None
        self.operations = self.slices = 0

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self.begin)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.end)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.count)
        engine.add_event_handler(Events.COMPLETED, self.write)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def start(self, engine: Engine) -> None:
        """Reset the counts."""
        self.operations = self.slices = 0

    def begin(self, engine: Engine) -> None:
        """Start counting the inferer's operations, without those of other handlers."""
        self.counter = FlopCounterMode(display=False)
        self.counter.__enter__()

    def end(self, engine: Engine | None = None) -> None:
        """Stop counting."""
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            self.operations += self.counter.get_total_flops()
            self.counter = None

    def count(self, engine: Engine) -> None:
        """Count the slices of an iteration."""
        if self.counter is not None:  # the network failed on the case, which counts neither way
            self.counter.__exit__(None, None, None)
            self.counter = None
        self.slices += sum(
            item["image"].shape[1 + self.axis] for item in cast(list[dict[str, Any]], engine.state.batch)
        )

    def write(self, engine: Engine) -> None:
        """Add the result of all processes to the summary, on rank 0."""
        parts = gather_objects((self.operations, self.slices))
        operations, slices = (sum(column) for column in zip(*parts, strict=True))
        if idist.get_rank() == 0 and self.file.is_file() and slices:
            summary = json.loads(self.file.read_text(encoding="utf-8"))
            summary["gflop_per_slice"] = operations / slices / 1e9
            write_summary(self.file, summary)

    def fail(self, engine: Engine, error: BaseException) -> None:
        """Stop counting and re-raise the error."""
        self.end()
        raise error
