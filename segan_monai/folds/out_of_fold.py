# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Out-of-fold metrics: every case is scored once per configuration, by the network that did not train on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from segan_monai.data import read_split
from segan_monai.errors import DataError
from segan_monai.folds.runs import FoldRun
from segan_monai.json_files import read_json_object
from segan_monai.metrics.summary import listed, read_metrics
from segan_monai.reproduce.results import REPEAT

OF_RUN = ["row", "seed", "fold"]


def out_of_fold_scores(runs: Iterable[FoldRun]) -> pd.DataFrame:
    """Read the metrics of all runs.

    Args:
        runs: results of ``run_fold``.

    Returns:
        One line per configuration, seed, case and region: ``row``, ``seed``, ``fold``, ``patient``, and the columns of
        ``metrics.csv``.

    Raises:
        DataError: a network was trained on a case that it scores, or a case was scored in two folds.
    """
    parts = []
    for run in runs:
        table = read_metrics(run.evaluation)
        patients: dict[str, str] = {}
        for member in run.members or (run,):
            split = read_split(member.training / "split.json", REPEAT)
            patients |= split["subjects"]
            if seen := sorted(set(split["training"]) & set(table["case"])):
                raise DataError(
                    f"{run.evaluation} scores {len(seen)} cases that its network was trained on, such as {seen[0]}. "
                    f"{REPEAT}"
                )
        own = {"row": run.row, "seed": run.seed, "fold": run.fold}
        parts.append(table.assign(**own, patient=table["case"].map(lambda case, of=patients: of.get(case, case))))
    columns = [*OF_RUN, "case", "patient", "region"]
    scores = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*columns, "dice", "hd95_mm"])
    twice = scores[scores.duplicated(["row", "seed", "case", "region"])]
    if len(twice):
        first = twice.iloc[0]
        same = scores[(scores["row"] == first["row"]) & (scores["case"] == first["case"])]
        raise DataError(
            f"row '{first['row']}': case {first['case']} was scored in folds {listed(sorted(set(same['fold'])))}; "
            f"expected one fold. Results of different data sets or numbers of folds are mixed. {REPEAT}"
        )
    return scores[[*columns, *(name for name in scores if name not in columns)]]


def check_complete(runs: Sequence[FoldRun]) -> list[str]:
    """Return what the out-of-fold scores lack: cases in no evaluated fold, and cases that could not be evaluated.

    Args:
        runs: results of ``run_fold``.

    Returns:
        One sentence per row and gap; empty if every case that a fold trains on was scored.
    """
    notes = []
    for row, seed in dict.fromkeys((run.row, run.seed) for run in runs):
        of_row = [run for run in runs if (run.row, run.seed) == (row, seed) and not run.members]
        known: set[str] = set()
        held_out: set[str] = set()
        failed: dict[str, str] = {}
        for run in of_row:
            split = read_split(run.training / "split.json", REPEAT)
            known |= {*split["training"], *split["validation"]}
            held_out |= set(split["validation"])
            failed |= read_json_object(run.evaluation / "summary.json", REPEAT).get("not_evaluated", {})
        if never := sorted(known - held_out):
            notes.append(f"{row}, seed {seed}: {len(never)} of {len(known)} cases were in no evaluated fold.")
        notes += [f"{row}, seed {seed}: case {case} was not evaluated: {why}" for case, why in failed.items()]
    return notes


def summarize_rows(scores: pd.DataFrame) -> pd.DataFrame:
    """Summarize each configuration over all cases.

    With several seeds, the value of a case is its mean over them.

    Args:
        scores: result of ``out_of_fold_scores``.

    Returns:
        One line per configuration and region, and one for the mean over the regions (``mean``) if there are several:
        ``row``, ``region``, ``cases``, ``dice`` (mean), ``median``, ``worst`` and ``worst_case``, ``hd95_mm``
        (median; NaN if that of a case is unknown, because its spacing is) and ``failed_cases`` (names, those with a
        Dice of 0 in any region and seed).
    """
    lines = []
    for row, of_row in scores.groupby("row", sort=False):
        failed = of_row[of_row["dice"] == 0]
        parts: list[tuple[str, pd.DataFrame]] = [
            (str(name), part) for name, part in of_row.groupby("region", sort=False)
        ]
        if len(parts) > 1:
            parts.append(("mean", of_row))
        for region, part in parts:
            cases = part.groupby("case", sort=False)[["dice", "hd95_mm"]].mean()
            if part.loc[part["dice"].notna(), "hd95_mm"].isna().any():
                cases["hd95_mm"] = math.nan  # the spacing is unknown; empty masks have a distance even then, infinity
            lost = failed if region == "mean" else failed[failed["region"] == region]
            lines.append({"row": row, "region": region, **_statistics(cases), "failed_cases": _names(lost)})
    return pd.DataFrame(lines)


def _statistics(cases: pd.DataFrame) -> dict[str, Any]:
    dice = cases["dice"]
    return {
        "cases": len(cases),
        "dice": float(dice.mean()),
        "median": float(dice.median()),
        "worst": float(dice.min()),
        "worst_case": str(dice.idxmin()),
        "hd95_mm": float(cases["hd95_mm"].median()),
    }


def _names(rows: pd.DataFrame) -> list[str]:
    return sorted(set(rows["case"]))
