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
from segan_monai.data.split_file import cases_of_part
from segan_monai.processes import gather_objects
from segan_monai.quality.table import SIGNALS, write_signals


class QualitySignals:
    """Writes ``signals.json``: what ``QualitySignalsd`` found for each case of an evaluation.

    Args:
        output_dir: folder of the evaluation.
        settings: settings under which the signals were found, see ``QualitySignalsd``; plain values.
        split_file: split with which the weights were trained, or one per member. Cases of its training are marked,
            because their Dice is too high for a fit. If a file is missing, these cases are unknown (null).
        cases: cases of the evaluation, see ``segan_monai.data.find_cases``.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        settings: Mapping[str, Any],
        split_file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        cases: Sequence[Mapping[str, Any]],
    ) -> None:
        self.output_dir = Path(output_dir)
        self.settings = settings
        self.split_files = [Path(file) for file in ensure_tuple(split_file)]
        self.evaluated = [dict(case) for case in cases]
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
        if idist.get_rank() > 0:
            return
        if not cases:
            (self.output_dir / SIGNALS).unlink(missing_ok=True)  # of an earlier run
            return
        seen = self._trained_on()
        write_signals(self.output_dir, self.settings, cases, None if seen is None else sorted(seen & cases.keys()))

    def _trained_on(self) -> set[str] | None:
        """Return the cases that a network saw in training, by name, content or subject; None if that is unknown."""
        if not all(file.is_file() for file in self.split_files):
            return None
        seen: set[str] = set()
        for split in map(read_split, self.split_files):
            for part in ("training", "unlabeled"):
                subjects = {split["subjects"].get(name, name) for name in split[part]}
                seen |= {case["case"] for case in cases_of_part(self.evaluated, split, part)}
                seen |= {case["case"] for case in self.evaluated if case.get("subject", case["case"]) in subjects}
        return seen
