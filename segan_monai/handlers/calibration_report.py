# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Calibration of the probabilities of an evaluation, as ``calibration.json``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segan_monai.handlers.per_case import PerCase
from segan_monai.json_files import write_json
from segan_monai.quality.calibration import CALIBRATION, calibration_error, fit_temperature


class CalibrationReport(PerCase[np.ndarray | None]):
    """Writes ``calibration.json`` from what ``CalibrationCountsd`` counted in all cases together.

    Each region has ``expected_calibration_error``, the ``temperature`` that fits the cases, and
    ``error_at_temperature``, the error with logits divided by it. Regions without a considered voxel are absent. On
    held-out cases, the temperature says how much too certain the network is; it is applied nowhere.

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
        """Add the counts of all cases, and write the file; without counts, remove that of an earlier run."""
        counts_of_cases = [counts for counts in found.values() if counts is not None]
        if not counts_of_cases:
            (self.output_dir / CALIBRATION).unlink(missing_ok=True)
            return
        record = {}
        for region, counts in zip(self.regions, np.sum(counts_of_cases, axis=0), strict=True):
            error, temperature = calibration_error(counts), fit_temperature(counts)
            if not math.isnan(error):
                record[region] = {
                    "expected_calibration_error": round(error, 5),
                    "temperature": round(temperature, 4),
                    "error_at_temperature": round(calibration_error(counts, temperature), 5),
                }
        write_json(self.output_dir / CALIBRATION, record)
