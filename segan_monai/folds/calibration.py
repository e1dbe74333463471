# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Calibration of each configuration on its out-of-fold cases, with the voxels of all folds together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segan_monai.folds.runs import FoldRun
from segan_monai.quality.calibration import COUNTS, calibration_of, read_counts
from segan_monai.reproduce.table import markdown_table

Calibrations = dict[str, dict[str, dict[str, float]]]


def pooled_calibration(runs: Sequence[FoldRun]) -> tuple[Calibrations, list[str]]:
    """Add the counts of all folds and seeds of each configuration, and return what they say.

    Ensembles are omitted: their members' evaluations have counts, and their mean has none.

    Args:
        runs: results of ``run_fold``.

    Returns:
        By configuration and region, see ``calibration_of``; and a sentence per configuration that has an evaluation
        without counts, which is left out.
    """
    found: Calibrations = {}
    notes = []
    single = [run for run in runs if not run.members]
    for row in dict.fromkeys(run.row for run in single):
        files = [run.evaluation / COUNTS for run in single if run.row == row]
        if missing := [file for file in files if not file.is_file()]:
            notes.append(f"{row}: no calibration over all folds, because {missing[0]} does not exist.")
            continue
        total: dict[str, np.ndarray] = {}
        for file in files:
            for region, counts in read_counts(file).items():
                total[region] = total.get(region, 0) + counts
        found[row] = calibration_of(total)
    return found, notes


def describe_calibration(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Return the result of ``pooled_calibration`` as a Markdown table and a sentence; nothing if it is empty."""
    lines = [
        {
            "configuration": row,
            "region": region,
            "expected calibration error": f"{of_region['expected_calibration_error']:.4f}",
            "temperature": f"{of_region['temperature']:.3f}",
            "error at that temperature": f"{of_region['error_at_temperature']:.4f}",
        }
        for row, of_row in found.items()
        for region, of_region in of_row.items()
    ]
    if not lines:
        return []
    return [
        markdown_table(lines),
        "Calibration of the probabilities of all out-of-fold cases together, before any post-processing: voxels of "
        "probability .01 or more in 15 bins. A temperature above 1 says that the networks are too certain; it was "
        "fitted to these cases, and is applied nowhere.",
    ]
