# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Ensembles of configurations, scored out of fold: the mean of their probability maps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch
from monai.data.utils import to_affine_nd

from segan_monai.ensembles import label_threshold, read_predictions
from segan_monai.errors import DataError
from segan_monai.folds.maps import labelled_cases, mean_map, regions_of, scored_cases
from segan_monai.folds.runs import FoldRun
from segan_monai.metrics import evaluate_case, label_map, write_evaluation
from segan_monai.metrics.summary import evaluation_table
from segan_monai.reproduce import Plan
from segan_monai.reproduce.results import REPEAT
from segan_monai.transforms.regions import merged_regions, regions_to_label_map


def ensembles_of(rows: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the ensembles to try: all pairs of configurations, then all of them together if there are more."""
    return [*combinations(rows, 2), *([tuple(rows)] if len(rows) > 2 else [])]


def ensemble_name(rows: Sequence[str]) -> str:
    """Return the name of an ensemble."""
    return " + ".join(rows)


def score_ensemble(plan: Plan, members: Sequence[FoldRun]) -> FoldRun:
    """Score the mean of the probability maps of several configurations on one held-out fold, unless that exists.

    A label map is made of the mean as of a single network's probabilities.

    Args:
        plan: the settings shared by all rows.
        members: runs of the same seed and fold, with saved probability maps.

    Raises:
        DataError: the members have different cases or regions, or maps of different shapes.
    """
    first = members[0]
    _require_same_cases(members)
    name = ensemble_name([member.row for member in members])
    # rows may have other overlays in the next call, runs lie in folders that are named after theirs
    runs = " + ".join(member.evaluation.parents[1].name for member in members)
    folder = plan.output_dir / "ensembles" / runs / f"seed_{first.seed}_fold_{first.fold}"
    result = FoldRun(name, first.seed, first.fold, first.training, folder, tuple(members))
    if _is_newer(folder / "summary.json", [member.evaluation / "summary.json" for member in members]):
        return result
    regions = regions_of(members)
    merged = merged_regions(regions, "consecutive")
    predictions = [read_predictions(member.evaluation) for member in members]
    threshold = label_threshold(predictions)
    rows = []
    for case, settings in labelled_cases(plan, first):
        label = case["label"]
        shape = (len(regions), *label.shape[1:])
        mean = mean_map(predictions, case["case"], shape)
        found = regions_to_label_map(torch.from_numpy(mean), regions, "consecutive", threshold)
        affine = to_affine_nd(3, label.affine.cpu().numpy())
        rows += evaluate_case(
            case["case"],
            label_map(f"ensemble of case {case['case']}", found[0].numpy(), affine),
            label_map(f"reference of case {case['case']}", label[0].cpu().numpy(), affine),
            regions,
            merged,
            settings["spacing_known"],
            settings["ignore_label"],
            case.get("labelled_regions"),
        )
    write_evaluation(evaluation_table(rows), folder, regions, merged)
    return result


def _require_same_cases(members: Sequence[FoldRun]) -> None:
    scored = {member.row: scored_cases(member) for member in members}
    for case in sorted(set().union(*scored.values())):
        with_case = [row for row, cases in scored.items() if case in cases]
        if lacking := [member for member in members if member.row not in with_case]:
            raise DataError(
                f"case {case} was evaluated by '{with_case[0]}', but not by '{lacking[0].row}' "
                f"({lacking[0].evaluation}). Expected the same cases of all members. {REPEAT}"
            )


def _is_newer(file: Path, others: Sequence[Path]) -> bool:
    return file.is_file() and all(file.stat().st_mtime_ns >= other.stat().st_mtime_ns for other in others)
