# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Quality signals of the evaluated cases, from which a quality estimate is fitted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from segan_monai.data import read_split
from segan_monai.data.split_file import patient_of, trained_cases, trained_patients
from segan_monai.handlers.per_case import PerCase
from segan_monai.quality.table import SIGNALS, write_signals


class QualitySignals(PerCase[dict[str, Any]]):
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
        super().__init__()
        self.output_dir = Path(output_dir)
        self.settings = settings
        self.split_files = [Path(file) for file in ensure_tuple(split_file)]
        self.evaluated = [dict(case) for case in cases]

    def of_case(self, case: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the patient and the signals of a case."""
        return {"patient": case.get("subject", case["case"]), **result["quality_signals"]}

    def write(self, found: Mapping[str, dict[str, Any]]) -> None:
        """Write the file; without cases, remove that of an earlier run."""
        if not found:
            (self.output_dir / SIGNALS).unlink(missing_ok=True)
            return
        seen = self._trained_on()
        write_signals(self.output_dir, self.settings, found, None if seen is None else sorted(seen & found.keys()))

    def _trained_on(self) -> set[str] | None:
        """Return the cases that a network saw in training, by name, content or subject; None if that is unknown."""
        if not all(file.is_file() for file in self.split_files):
            return None
        seen: set[str] = set()
        for split in map(read_split, self.split_files):
            patients = trained_patients(split)
            seen |= trained_cases(self.evaluated, split)
            seen |= {case["case"] for case in self.evaluated if patient_of(case) in patients}
        return seen
