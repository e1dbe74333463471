# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Calibration of the probabilities of an evaluation, as ``calibration.json``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events

from segan_monai.json_files import write_json
from segan_monai.processes import gather_objects
from segan_monai.quality.calibration import calibration_error, fit_temperature

NAME = "calibration.json"


class CalibrationReport:
    """Writes ``calibration.json`` from what ``CalibrationCountsd`` counted in all cases together.

    Each region has ``expected_calibration_error``, the ``temperature`` that fits the cases, and
    ``error_at_temperature``, the error with logits divided by it. Regions without a considered voxel are absent. On
    held-out cases, the temperature says how much too certain the network is; it is applied nowhere.

    Args:
        output_dir: folder of the evaluation.
        regions: names of the regions, in channel order.
    """

    def __init__(self, output_dir: str | os.PathLike[str], regions: Sequence[str]) -> None:
        self.output_dir = Path(output_dir)
        self.regions = list(regions)
        self.counts: np.ndarray | None = None

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Forget an earlier run."""
        self.counts = None

    def collect(self, engine: Engine) -> None:
        """Add the counts of one iteration's cases."""
        output: Any = engine.state.output
        for found in output:
            counts = found.get("calibration_counts")
            if counts is not None:
                self.counts = counts if self.counts is None else self.counts + counts

    def write(self) -> None:
        """Add the counts of all processes, and write the file on rank 0."""
        parts = [counts for counts in gather_objects(self.counts) if counts is not None]
        if idist.get_rank() > 0:
            return
        if not parts:
            (self.output_dir / NAME).unlink(missing_ok=True)  # of an earlier run
            return
        found = {}
        for region, counts in zip(self.regions, np.sum(parts, axis=0), strict=True):
            error, temperature = calibration_error(counts), fit_temperature(counts)
            if not math.isnan(error):
                found[region] = {
                    "expected_calibration_error": round(error, 5),
                    "temperature": round(temperature, 4),
                    "error_at_temperature": round(calibration_error(counts, temperature), 5),
                }
        write_json(self.output_dir / NAME, found)
