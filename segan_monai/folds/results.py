# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Results of a cross-validation as files: the scores, and the choice of a configuration and its post-processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from segan_monai.errors import DataError
from segan_monai.files import whole_file, write_text
from segan_monai.folds.calibration import describe_calibration, pooled_calibration
from segan_monai.folds.choice import choose_row
from segan_monai.folds.ensembles import ensemble_name, ensembles_of, score_ensemble
from segan_monai.folds.out_of_fold import check_complete, out_of_fold_scores
from segan_monai.folds.region_rules import choose_region_rules, describe_rules
from segan_monai.folds.report import format_result, record_of_choice
from segan_monai.folds.runs import FoldRun
from segan_monai.json_files import write_json
from segan_monai.reproduce import Plan


class Results(NamedTuple):
    """Results of a cross-validation.

    Attributes:
        text: content of ``folds.md``, see ``format_result``.
        record: content of ``folds.json``, see ``record_of_choice``; None if no configuration has all folds.
    """

    text: str
    record: dict[str, Any] | None


def write_results(
    plan: Plan,
    runs: Sequence[FoldRun],
    errors: Mapping[str, str],
    ensembles: bool,
    region_rules: bool,
    skipped: Sequence[str] = (),
) -> Results:
    """Score all cases out of fold, choose a configuration, and write ``folds.md``, ``folds.csv`` and ``folds.json``.

    ``folds.json`` of an earlier choice is removed if there is none now.

    Args:
        plan: the settings shared by all rows; its output folder receives the files.
        runs: results of ``run_fold``.
        errors: configuration to error messages of its failed folds; these are no candidates.
        ensembles: whether ensembles of the configurations are candidates too; the runs then have saved maps.
        region_rules: whether to choose the post-processing of the winner on all cases; the runs then have saved maps.
        skipped: result of ``skipped_steps``.

    Raises:
        OutputError: A file cannot be written.
    """
    runs, notes = list(runs), list(skipped)
    candidates = [name for name in plan.table.rows if name not in errors]
    for members in ensembles_of(candidates) if ensembles else ():
        of_members = [[run for run in runs if run.row == name] for name in members]
        try:
            runs += [score_ensemble(plan, of_fold) for of_fold in zip(*of_members, strict=True)]
            candidates.append(ensemble_name(members))
        except DataError as error:
            notes.append(f"**{ensemble_name(members)} failed**: {error} It is no candidate.")
    scores = out_of_fold_scores(runs)
    choice = choose_row(scores, candidates) if candidates else None
    rules = None
    if choice is not None and region_rules:
        rules = choose_region_rules(plan, [run for run in runs if run.row == choice.winner])
        notes.append(describe_rules(rules))
    calibration, without = pooled_calibration(runs)
    notes += [*without, *describe_calibration(calibration)]
    text = format_result(plan, scores, choice, [*check_complete(runs), *notes], errors)
    write_text(plan.output_dir / "folds.md", text)
    with whole_file(plan.output_dir / "folds.csv") as file:
        scores.to_csv(file, index=False, float_format="%.9g")
    record_file = plan.output_dir / "folds.json"
    record_file.unlink(missing_ok=True)  # of an earlier choice
    if choice is None:
        return Results(text, None)
    record = record_of_choice(plan, runs, scores, choice, rules, calibration)
    write_json(record_file, record, allow_nan=False)
    return Results(text, record)
