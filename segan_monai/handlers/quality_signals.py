# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Quality signals of the evaluated cases, from which a quality estimate is fitted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.utils import ensure_tuple

from segan_monai.data import read_split
from segan_monai.processes import gather_objects
from segan_monai.quality.table import write_signals


class QualitySignals:
    """Writes ``signals.json``: what ``QualitySignalsd`` found for each case of an evaluation.

    Args:
        output_dir: folder of the evaluation.
        settings: settings under which the signals were found, see ``QualitySignalsd``; plain values.
        split_file: split with which the weights were trained, or one per member. Cases of its training are marked,
            because their Dice is too high for a fit.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        settings: Mapping[str, Any],
        split_file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    ) -> None:
        self.output_dir = Path(output_dir)
        self.settings = settings
        self.split_files = [Path(file) for file in ensure_tuple(split_file)]
        self.cases: dict[str, dict[str, Any]] = {}

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda: self.cases.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def collect(self, engine: Engine) -> None:
        """Keep the signals of one iteration's cases."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for case, found in zip(batch, output, strict=True):
            patient = case.get("subject", case["case"])
            self.cases[case["case"]] = {"patient": patient, **found["quality_signals"]}

    def write(self) -> None:
        """Gather the cases of all processes, and write the file on rank 0."""
        cases = {case: found for part in gather_objects(self.cases) for case, found in part.items()}
        if idist.get_rank() == 0 and cases:
            splits = [read_split(file) for file in self.split_files if file.is_file()]
            seen = {case for split in splits for case in split["training"]}
            write_signals(self.output_dir, self.settings, cases, sorted(seen & cases.keys()))
