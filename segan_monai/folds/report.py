# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What a cross-validation writes: a table in Markdown, and a JSON record of the choice."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from segan_monai.folds.choice import Choice
from segan_monai.folds.out_of_fold import summarize_rows
from segan_monai.folds.runs import FoldRun
from segan_monai.metrics.parts import describe_parts, summarize_parts
from segan_monai.metrics.summary import listed
from segan_monai.reproduce import Plan
from segan_monai.reproduce.published import recorded_name
from segan_monai.reproduce.table import markdown_table


def format_result(
    plan: Plan, scores: pd.DataFrame, choice: Choice | None, notes: Sequence[str], errors: Mapping[str, str]
) -> str:
    """Format the out-of-fold results as Markdown: a table per purpose, the choice in words, and what is missing.

    Args:
        plan: the settings shared by all rows.
        scores: result of ``out_of_fold_scores``.
        choice: the choice; None if no configuration has all folds.
        notes: sentences about missing cases.
        errors: configuration to error messages of its failed folds.
    """
    summary = summarize_rows(scores)
    lines = [
        {
            "configuration": line.row,
            "region": line.region,
            "cases": str(line.cases),
            "Dice": f"{line.dice:.4f}",
            "median": f"{line.median:.4f}",
            "worst": f"{line.worst:.4f} ({line.worst_case})",
            "HD95 mm, median": "" if pd.isna(line.hd95_mm) else f"{line.hd95_mm:.2f}",
            "failures": listed(line.failed_cases) or "none",
        }
        for line in summary.itertuples()
    ]
    parts = [markdown_table(lines)]
    if choice is not None and len(choice.differences):
        parts.append(markdown_table([_difference(choice.best, line) for line in choice.differences.itertuples()]))
    if choice is None:
        parts.append("**No choice**: no configuration has results of all folds.")
    else:
        parts.append(f"**Chosen: {choice.winner}.** {choice.reason}")
    for row, of_row in scores.groupby("row", sort=False):
        if union := summarize_parts(of_row):
            parts.append(f"{row}: {describe_parts(float(union['dice'].mean()), union)}")
    seeds, folds = (sorted(set(scores[name])) for name in ("seed", "fold"))
    parts.append(
        f"Out-of-fold results of {Path(plan.table.bundle).name} on {plan.dataset_dir.name}: every case is scored by "
        f"the network that did not train on it (folds {_joined(folds)}, seeds {_joined(seeds)}). If a training "
        "validates more than once, the fold also chooses the epoch of its weights, and the figures are slightly too "
        "high, for all configurations alike. Failures are cases with a Dice of 0, and count in the means."
    )
    parts += notes
    parts += [f"**{row} failed**: {error} It is no candidate." for row, error in errors.items()]
    return "\n\n".join(parts) + "\n"


def _difference(best: str, line: Any) -> dict[str, str]:
    return {
        f"Dice, paired with {best}": line.row,
        "patients": str(line.patients),
        "difference": f"{line.difference:+.4f}",
        "95 % CI": f"{line.low:+.4f} to {line.high:+.4f}",
        "better in": str(line.better),
        "P (Wilcoxon, corrected)": f"{line.p:.2g}",
    }


def record_of_choice(
    plan: Plan,
    runs: Sequence[FoldRun],
    scores: pd.DataFrame,
    choice: Choice,
    rules: Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the JSON record of the choice.

    Args:
        plan: the settings shared by all rows.
        runs: results of ``run_fold``.
        scores: result of ``out_of_fold_scores``.
        choice: the choice.
        rules: result of ``choose_region_rules``; None if no post-processing was chosen.
        calibration: by configuration, see ``pooled_calibration``.

    Returns:
        ``winner``, ``reason``, ``weights`` (by configuration, the training folders of the winner, one per fold and
        seed), ``region_rules``, ``predict`` (the commands that predict with their mean probability), and ``rows``:
        overlays, folders of the out-of-fold evaluations, statistics and ``calibration`` of every configuration.
    """
    summary = summarize_rows(scores)
    rows: dict[str, Any] = {}
    for row in dict.fromkeys(run.row for run in runs):
        of_row = summary[summary["row"] == row].drop(columns="row").set_index("region")
        rows[row] = {
            "overlays": [recorded_name(file) for file in plan.table.rows.get(row, [])],
            "runs": [
                {"seed": run.seed, "fold": run.fold, "folder": str(run.evaluation)} for run in runs if run.row == row
            ],
            "regions": {str(region): _plain(values) for region, values in of_row.to_dict("index").items()},
            "calibration": (calibration or {}).get(row),
        }
    of_winner = [run for run in runs if run.row == choice.winner]
    weights: dict[str, list[str]] = {}
    for member in (member for run in of_winner for member in run.members or (run,)):
        weights.setdefault(member.row, []).append(str(member.training.resolve()))
    return {
        "winner": choice.winner,
        "reason": choice.reason,
        "weights": weights,
        "region_rules": rules,
        "predict": predict_commands(plan, weights, (rules or {}).get("rules", {})),
        "rows": rows,
    }


def predict_commands(plan: Plan, weights: Mapping[str, Sequence[str]], rules: Mapping[str, Any]) -> list[str]:
    """Return the commands that predict with the chosen configuration.

    Args:
        plan: the settings shared by all rows.
        weights: training folders of the configuration; for an ensemble, those of each member by name.
        rules: rules of post-processing of an ensemble of configurations; those of one configuration lie beside its
            weights.
    """
    bundle = shlex.quote(plan.table.bundle)
    if len(weights) == 1:
        (of_row,) = weights.values()
        return [f"segan-monai predict {bundle} -i IMAGES -o OUT --weights {_listed(of_row)}"]
    folders = {name: shlex.quote(f"OUT/{name}") for name in weights}
    predict = f"segan-monai predict {bundle} -i IMAGES --save_probabilities regions"
    commands = [f"{predict} -o {folders[name]} --weights {_listed(of_row)}" for name, of_row in weights.items()]
    post_processing = f" --region_rules {shlex.quote(json.dumps(rules))}" if rules else ""
    return [*commands, f"segan-monai ensemble {' '.join(folders.values())} -o OUT/ensemble{post_processing}"]


def _listed(weights: Sequence[str]) -> str:
    listed_weights = ",".join(f"'{folder}'" for folder in weights)
    quoted = f'"[{listed_weights}]"'
    if set(listed_weights) & set('"$`\\!'):
        quoted = shlex.quote(f"[{listed_weights}]")
    return quoted


def _plain(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return values as JSON allows them: null for NaN and infinity."""
    return {
        str(key): None if isinstance(value, float) and not abs(value) < float("inf") else value
        for key, value in values.items()
    }


def _joined(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
