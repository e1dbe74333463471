# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Out-of-fold cases with the mean of the probability maps that evaluations saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from segan_monai.ensembles import Predictions, regions_of_run
from segan_monai.ensembles.average import mean_of_case
from segan_monai.errors import DataError
from segan_monai.folds.runs import FoldRun
from segan_monai.metrics.summary import read_metrics
from segan_monai.reproduce import Plan
from segan_monai.reproduce.labels import load_cases
from segan_monai.reproduce.plan import config_files_of
from segan_monai.reproduce.results import REPEAT

Regions = dict[str, list[int]]


def regions_of(runs: Sequence[FoldRun]) -> Regions:
    """Return the label values of each region, in channel order, which must be the same in all runs.

    Regions that no case of a run is labelled for are among them.

    Raises:
        DataError: two runs have different regions.
    """
    found: dict[str, Regions] = {}
    for run in runs:
        found[run.row] = {**found.get(run.row, {}), **regions_of_run(run.evaluation)}
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
        See ``load_cases``.
    """
    files = config_files_of(plan, run.row, "evaluating", run.evaluation)
    yield from load_cases(files, scored_cases(run), "chosen_cases")


def scored_cases(run: FoldRun) -> set[str]:
    """Return the names of the cases in the evaluation of a run."""
    return set(read_metrics(run.evaluation)["case"])


def mean_map(members: Sequence[Predictions], case: str, shape: Sequence[int]) -> np.ndarray:
    """Return the mean of the probability maps of a case.

    Args:
        members: saved maps of the members.
        case: name of the case.
        shape: (K, H, W[, D]) for K regions on the grid of the label map.

    Returns:
        (K, H, W[, D]) in float32, values from 0 to 1.

    Raises:
        DataError: the maps have another shape.
    """
    mean = mean_of_case(members, case).numpy()
    # files leave out axes of length 1 at the end
    if [side for side in mean.shape if side > 1] != [side for side in shape if side > 1]:
        raise DataError(
            f"the probability maps of case {case} in {members[0].folder} have shape {mean.shape}; expected "
            f"{tuple(shape)}, that of its label map. {REPEAT}"
        )
    return mean.reshape(shape)
