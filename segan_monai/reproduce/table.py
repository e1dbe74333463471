# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Result tables in Markdown and CSV, with our results beside the published figures."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import monai
import pandas as pd
import torch

from segan_monai._version import __version__
from segan_monai.data.unlabeled import count_text
from segan_monai.metrics.summary import DISTANCES
from segan_monai.reproduce.domains import REALISM, domain_rows
from segan_monai.reproduce.paired import paired_differences, share_of_gap
from segan_monai.reproduce.plan import Plan, rows_that_set
from segan_monai.reproduce.published import ResultTable, recorded_name

TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "precision",
    "sensitivity": "sensitivity",
    "hd95_mm": "HD95 mm",
    "assd_mm": "ASSD mm",
    "prediction_components": "components",
    "prediction_surface_to_volume_per_mm": "surface/volume per mm",
}
EXTRA_TITLES = {"roi_iou": "RoI IoU"}  # for networks with RoIs
SPLIT_SEED = {"split#seed", "split::seed"}  # keys of --set that keep the folds of one seed
OF_TRAINING = {"box_iou": "box IoU"}  # the same, of the last epoch of training, over all regions


def format_csv(runs: Sequence[Mapping[str, Any]]) -> str:
    """Format all runs as CSV, with one line per row, seed, fold, draw of labels and region.

    Args:
        runs: results of ``run_row``.

    Returns:
        CSV with the columns ``row,seed,[fold,][labels,draw,]region,cases,failures,dice,...,epochs,train_seconds,
        peak_memory_mib`` and one ``parameters_<network>`` per network; with domains also ``dice_<domain>`` and
        ``REALISM``. Metrics are means over the cases.
    """
    lines = [
        {
            "row": run["row"],
            "seed": run["seed"],
            **{name: run[name] for name in ("fold", "labels", "draw") if name in run},
            "region": region,
            "cases": found["cases"],
            "failures": found["failures"],
            **{metric: mean_of(found, metric) for metric in (*TITLES, *EXTRA_TITLES) if metric in found},
            **{f"dice_{domain}": dice.get(region, math.nan) for domain, dice in run.get("dice_of_domains", {}).items()},
            **{name: run[name] for name in ("epochs", "train_seconds", "peak_memory_mib")},
            **{name: run[name] for name in ("gflop_per_slice", *OF_TRAINING, *REALISM) if name in run},
            **{f"parameters_{name}": count for name, count in run["parameters"].items()},
        }
        for run in runs
        for region, found in run["regions"].items()
    ]
    return pd.DataFrame(lines).to_csv(index=False, float_format="%.6g")


def format_markdown(plan: Plan, runs: Sequence[Mapping[str, Any]], failed: Mapping[str, str] | None = None) -> str:
    """Format the table as Markdown, one line per row: our mean and standard deviation beside the published figures.

    Args:
        plan: settings of all runs.
        runs: results of ``run_row``.
        failed: row to error message, for rows with a failed run.

    Returns:
        Markdown table, one by domain if the bundle has domains, and notes on how to read and repeat them. Distances are
        left out where the spacing is unknown.
    """
    table = plan.table
    by_row: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        by_row.setdefault(name_of(run), []).append(run)
    rows = [{"": row, **_ours(table, of_row), **_published(table, of_row[0]["row"])} for row, of_row in by_row.items()]
    rows += [{"": row, "epochs": "failed"} for row in failed or {} if row not in {run["row"] for run in runs}]
    seeds = sorted({run["seed"] for run in runs})
    folds = sorted({run["fold"] for run in runs if "fold" in run})
    notes = [f"{table.title}. Published: {table.source}, on {table.data}."]
    if runs:
        regions = next(iter(runs[0]["regions"].values()))
        seeded = "initialization" if SPLIT_SEED & plan.overrides.keys() else "split and initialization"
        notes.append(
            f"Ours: {plan.dataset_dir.name}, {_training_cases(by_row)} training cases, {regions['cases']} held out "
            f"by subject, {seeded} by seed ({', '.join(map(str, seeds))}); bundle {table.bundle}"
            + "".join(f", {recorded_name(file)}" for file in plan.configs)
            + "".join(f", {key}={value}" for key, value in plan.overrides.items())
            + "."
        )
        of_table = [row for row in table.rows if any(run["row"] == row for run in runs)]
        if kept := [f"{key} ({', '.join(own)})" for key, own in rows_that_set(plan, of_table).items() if own]:
            notes.append(
                f"Not changed by --set or --config, because these rows set the key themselves: {'; '.join(kept)}."
            )
        if unknown := [_title(metric) for metric in table.metrics if any(_is_unknown(run, metric) for run in runs)]:
            notes.append(f"{' and '.join(unknown)} left out: the spacing of the images is unknown.")
        notes += _unlabelled(by_row)
        if folds:
            notes.append(f"Cross-validation: folds {', '.join(map(str, folds))} were held out in turn.")
        if len(seeds) > 1 or len(folds) > 1 or (table.labels and len(table.labels.draws) > 1):
            over = "folds" if len(folds) > 1 else "seeds"
            over += " and draws of labelled cases" if table.labels else ""
            notes.append(f"± is the standard deviation over {over} of the means over cases.")
        failures = {
            row: sum(region["failures"] for run in of_row for region in run["regions"].values())
            for row, of_row in by_row.items()
        }
        missed = [f"{row} {count}" for row, count in failures.items() if count]
        notes.append(f"Cases with a Dice of 0 (included in the means): {', '.join(missed) or 'none'}.")
        collapsed = {row: sum(map(has_collapsed, of_row)) for row, of_row in by_row.items()}
        if any(collapsed.values()):
            shares = ", ".join(f"{row} {count} of {len(by_row[row])}" for row, count in collapsed.items() if count)
            notes.append(f"Collapsed runs (a region with a Dice of 0 in more than half of the cases): {shares}.")
    notes += [f"**{row} failed**: {error}" for row, error in (failed or {}).items()]
    notes.append(
        f"segan-monai {__version__}, torch {torch.__version__}, monai {monai.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} CPU threads"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "")
        + "."
    )
    of_domains = domain_rows(by_row)
    tables = [markdown_table(rows), *([markdown_table(of_domains)] if of_domains else []), *_paired(table, runs)]
    return "\n\n".join([*tables, *notes]) + "\n"


def name_of(run: Mapping[str, Any]) -> str:
    """Return the name of a run's line: its row, and the number of labelled cases if it is given."""
    return f"{run['row']}, {run['labels']} labelled" if "labels" in run else run["row"]


def _training_cases(by_row: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the number of training cases of all rows, or the different numbers of labelled and unlabelled ones."""
    most = [max((run["training_cases"], run["unlabeled_cases"]) for run in of_row) for of_row in by_row.values()]
    if not any(unlabelled for _, unlabelled in most):
        return str(max(labelled for labelled, _ in most))
    return " or ".join(dict.fromkeys(count_text(*numbers) for numbers in most))


def has_collapsed(run: Mapping[str, Any]) -> bool:
    """Return whether a region has a Dice of 0 in more than half of the cases."""
    return any(2 * region["failures"] > region["cases"] for region in run["regions"].values())


def _paired(table: ResultTable, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the paired comparison with the baseline, if the table has one and it can be made: a title and a table."""
    found = paired_differences(runs, table.baseline) if table.baseline else pd.DataFrame()
    if found.empty:
        return []
    all_labels = table.labels.all_labels if table.labels else table.oracle
    shares = share_of_gap(runs, str(table.baseline), all_labels) if all_labels else {}
    several = bool(table.labels and len(table.labels.draws) > 1)
    rows = [
        {
            f"Dice, paired with {table.baseline}": line.row
            + ("" if pd.isna(line.labels) else f", {line.labels:.0f} labelled"),
            "patients": str(line.patients),
            "difference": f"{line.difference:+.3f}",
            "95 % CI": f"{line.low:+.3f} to {line.high:+.3f}",
            "better in": str(line.better),
            **({"draws better": f"{line.draws_better} of {line.draws}"} if several else {}),
            **(
                {
                    "gap closed": f"{shares[key]:.0%}"
                    if (key := (line.row, 0 if pd.isna(line.labels) else line.labels)) in shares
                    else ""
                }
                if shares
                else {}
            ),
            "P (Wilcoxon, corrected)": f"{line.p:.2g}",
        }
        for line in found.itertuples()
    ]
    return [markdown_table(rows)]


def _ours(table: ResultTable, runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    cells = {}
    for metric in table.metrics:
        if any(_is_unknown(run, metric) for run in runs):
            continue
        title = _title(metric)
        of_runs = [
            {name: mean_of(found, metric) for name, found in run["regions"].items() if metric in found} for run in runs
        ]
        values = pd.DataFrame(of_runs)  # NaN for a region that no held-out case of a run is labelled for
        regions = list(values)
        cells.update({f"{title} {name}": _mean(values[name]) for name in regions})
        if len(regions) > 1:
            cells[f"{title} mean"] = _mean(values.mean(axis=1, skipna=False))
    for metric, title in OF_TRAINING.items():
        if metric in table.metrics and metric in runs[0]:
            cells[f"{title} in training"] = _mean(pd.Series([run[metric] for run in runs]))
    parameters = runs[0]["parameters"]
    others = [count for name, count in parameters.items() if name != "network"]
    return {
        **cells,
        "epochs": "/".join(str(epochs) for epochs in sorted({run["epochs"] for run in runs})),
        "training s": f"{sum(run['train_seconds'] for run in runs) / len(runs):.0f}",
        "peak MiB": f"{max(run['peak_memory_mib'] for run in runs):.0f}",
        "parameters M": f"{parameters['network'] / 1e6:.3g}"
        + (f" (+ {sum(others) / 1e6:.3g} in training)" if others else ""),
        **({"GFLOP per slice": f"{runs[0]['gflop_per_slice']:.3g}"} if "gflop_per_slice" in runs[0] else {}),
    }


def _unlabelled(by_row: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a sentence per row and region that no held-out case of some of its runs is labelled for."""
    return [
        f"{row}: no held-out case of {lacking} of {len(runs)} runs is labelled for {region}; its figures, and the "
        "means over regions, are of the other runs."
        for row, runs in by_row.items()
        for region in dict.fromkeys(region for run in runs for region in run["regions"])
        if (lacking := sum(region not in run["regions"] for run in runs))
    ]


def mean_of(region: Mapping[str, Any], metric: str) -> float:
    """Return a metric's mean in ``summary.json``: infinite if a distance is infinite, NaN if the spacing is unknown."""
    found = region[metric]
    if found["mean"] is not None:
        return float(found["mean"])
    infinite = found.get("infinite", 0)
    unknown = infinite < region["cases"] and found.get("mean_of_finite", 0) is None  # empty masks are known in any unit
    return float("inf") if infinite and not unknown else float("nan")


def _is_unknown(run: Mapping[str, Any], metric: str) -> bool:
    """Return whether a metric is a distance, and the spacing of a run's images is unknown."""
    regions = [region for region in run["regions"].values() if metric in region]
    return metric in DISTANCES and any(math.isnan(mean_of(region, metric)) for region in regions)


def _published(table: ResultTable, row: str) -> dict[str, str]:
    return {
        f"published {_title(metric)} {region}": f"{value:.3g}"
        for metric, regions in table.published[row].items()
        for region, value in regions.items()
    }


def _title(metric: str) -> str:
    return {**TITLES, **EXTRA_TITLES, **OF_TRAINING}.get(metric, metric)


def _mean(values: pd.Series) -> str:
    """Return mean and standard deviation of the runs that have a value; empty without any."""
    values = values.dropna()
    if values.empty:
        return ""
    if not values.map(math.isfinite).all():
        return f"{values.mean():.3f}"
    return f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else "")


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Format rows as a Markdown table; the columns are the union of their keys."""
    frame = pd.DataFrame(rows).fillna("")
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
