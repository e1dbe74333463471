# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Saved probability maps of out-of-fold cases, beside their label maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from monai.bundle import ConfigParser

from segan_monai.errors import DataError
from segan_monai.folds.runs import REPEAT, FoldRun, map_file
from segan_monai.json_files import read_json_object
from segan_monai.reproduce import Plan
from segan_monai.reproduce.runs import config_files_of

Regions = dict[str, list[int]]


def regions_of(runs: Sequence[FoldRun]) -> Regions:
    """Return the label values of each region, in channel order, which must be the same in all runs.

    Raises:
        DataError: two runs have different regions.
    """
    found: dict[str, Regions] = {}
    for run in runs:
        regions = read_json_object(run.evaluation / "summary.json", REPEAT)["regions"]
        found[run.row] = {name: of_region["reference_values"] for name, of_region in regions.items()}
    first, *others = found.items()
    for name, regions in others:
        if list(regions.items()) != list(first[1].items()):
            raise DataError(
                f"rows '{first[0]}' and '{name}' have different regions, {first[1]} and {regions}, so their "
                "probabilities cannot be averaged. Use --no-ensembles, or give all rows the same regions."
            )
    return first[1]


def labelled_cases(plan: Plan, run: FoldRun) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Load the label maps of the held-out cases of a run as its evaluation did.

    Args:
        plan: the settings shared by all rows.
        run: result of ``run_fold``.

    Yields:
        ``case``, ``label`` (1, H, W[, D]) and what else a case has; and the settings ``ignore_label`` and
        ``spacing_known`` of the evaluation.
    """
    parser = ConfigParser()
    parser.read_config(config_files_of(plan, run.row, "evaluating", run.evaluation))
    settings = {key: parser.get_parsed_content(key) if key in parser else default for key, default in _DEFAULTS.items()}
    load = parser.get_parsed_content("preprocessing#transforms#0")
    scored = set(pd.read_csv(run.evaluation / "metrics.csv", dtype={"case": str})["case"])
    for case in parser.get_parsed_content("chosen_cases"):
        if case["case"] in scored:
            yield load(case), settings


_DEFAULTS = {"ignore_label": None, "spacing_known": True}


def mean_map(evaluations: Sequence[Path], case: str, shape: Sequence[int]) -> np.ndarray:
    """Return the mean of the probability maps of a case.

    Args:
        evaluations: folders of the evaluations that saved the maps.
        case: name of the case.
        shape: (K, H, W[, D]) for K regions on the grid of the label map.

    Returns:
        (K, H, W[, D]) in float32, values from 0 to 1.

    Raises:
        DataError: a map has another shape.
    """
    mean = np.zeros(shape, np.float32)
    for folder in evaluations:
        file = map_file(folder, case)
        values = np.asarray(nibabel.Nifti1Image.from_filename(file).dataobj, np.float32)
        in_file = (*shape[1:], shape[0])  # regions are the last axis; axes of length 1 at the end may be missing
        if [side for side in values.shape if side > 1] != [side for side in in_file if side > 1]:
            raise DataError(f"{file} has shape {values.shape}; expected {in_file}. {REPEAT}")
        mean += np.moveaxis(values.reshape(in_file), -1, 0) / len(evaluations)
    return mean
