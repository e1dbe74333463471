# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Calibration of the probabilities of an evaluation, as ``calibration.json`` and ``calibration.csv``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segan_monai.handlers.per_case import PerCase
from segan_monai.json_files import write_json
from segan_monai.quality.calibration import CALIBRATION, COUNTS, calibration_of, write_counts


class CalibrationReport(PerCase[np.ndarray | None]):
    """Writes ``calibration.json`` from what ``CalibrationCountsd`` counted in all cases together.

    Each region has ``expected_calibration_error``, the ``temperature`` that fits the cases, and
    ``error_at_temperature``, the error with logits divided by it. Regions without a considered voxel are absent. On
    held-out cases, the temperature says how much too certain the network is; it is applied nowhere. ``calibration.csv``
    has the counts.

    Args:
        output_dir: folder of the evaluation.
        regions: names of the regions, in channel order.
    """

    def __init__(self, output_dir: str | os.PathLike[str], regions: Sequence[str]) -> None:
        super().__init__()
        self.output_dir = Path(output_dir)
        self.regions = list(regions)

    def of_case(self, case: Mapping[str, Any], result: Mapping[str, Any]) -> np.ndarray | None:
        """Return the counts of a case; None without any."""
        return result.get("calibration_counts")

    def write(self, found: Mapping[str, np.ndarray | None]) -> None:
        """Add the counts of all cases, and write the files; without counts, remove those of an earlier run."""
        counts_of_cases = [counts for counts in found.values() if counts is not None]
        if not counts_of_cases:
            for name in (CALIBRATION, COUNTS):
                (self.output_dir / name).unlink(missing_ok=True)
            return
        counts = dict(zip(self.regions, np.sum(counts_of_cases, axis=0), strict=True))
        write_counts(self.output_dir / COUNTS, counts)
        write_json(self.output_dir / CALIBRATION, calibration_of(counts))
