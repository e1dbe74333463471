# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Rendering of the HTML report."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from segan_monai._version import __version__
from segan_monai.data.partial_labels import hidden_text
from segan_monai.data.split_file import counts_of_parts
from segan_monai.data.unlabeled import count_text
from segan_monai.files import write_text
from segan_monai.metrics.overlap import EMPTY_MASK_RULE
from segan_monai.metrics.parts import describe_parts
from segan_monai.metrics.summary import DISTANCES, FAILURE_RULE, summarize
from segan_monai.report.folder import RunFolder, read_runs
from segan_monai.report.history import KEY_METRIC, TRAINING, VALIDATION
from segan_monai.report.plots import TITLES, boxes, curves, dice_by_size, layer_shares
from segan_monai.report.published import published_figures
from segan_monai.report.quality import embedded, far_cases, quality_of_cases
from segan_monai.report.slices import region_colours, slice_pictures

MEASURES = ("dice", "iou", "precision", "sensitivity", "hd95_mm", "assd_mm", "roi_iou")
PLOTTED = ("dice", "hd95_mm", "sensitivity")


def write_report(folders: Sequence[str | os.PathLike[str]], file: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of one or more runs as one HTML file that needs no other files and no network.

    Args:
        folders: output folders of training or evaluation runs. The training run of an evaluation is added.
        file: HTML file to write; default: ``report.html`` in the first folder.

    Returns:
        Path of the HTML file.

    Raises:
        DataError: A folder does not contain a run.
        OutputError: The file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    runs = read_runs([Path(folder) for folder in folders])
    file = Path(folders[0]) / "report.html" if file is None else Path(file)
    environment = Environment(
        loader=PackageLoader("segan_monai.report", "."), autoescape=select_autoescape(["html", "j2"]), trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=_title(runs),
        version=__version__,
        runs=[_section(run) for run in runs],
        simulated=any(run.simulated for run in runs),
        rules=f"{FAILURE_RULE} {EMPTY_MASK_RULE}",
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, page, errors="backslashreplace")
    return file


def _title(runs: Sequence[RunFolder]) -> str:
    record = runs[0].record
    root = str(record.get("config", {}).get("bundle_root", ""))
    of_root = "" if root.startswith("$") else Path(root).name  # records of earlier versions have no "bundle"
    return (str(record.get("bundle") or "") or of_root).replace("_", " ") or runs[0].folder.name


def _section(run: RunFolder) -> dict[str, Any]:
    """Collect the template's values for one run."""
    section: dict[str, Any] = {
        "kind": _kind(run),
        "folder": run.folder.name,
        "facts": _facts(run),
        "command": run.record.get("command", ""),
        "config": json.dumps(run.record.get("config", {}), indent=2),
        "pictures": [(file.stem.replace("_", " "), embedded(file)) for file in run.pictures],
    }
    if run.history is not None:
        section["losses"] = curves(run.history, TRAINING)
        section["layers"] = layer_shares(run.history)
        section["validation"] = curves(run.history, VALIDATION)
    if run.quality is not None:
        section["quality"] = quality_of_cases(run)
    if run.metrics is not None:
        measures = [name for name in MEASURES if name in run.metrics and run.metrics[name].notna().any()]
        published = published_figures(run)
        section["regions"] = _regions(run, measures, published.values)
        section["has_published"] = bool(published.values)
        section["published"] = published.note
        section["statistics"] = [_statistic(name) for name in measures]
        section["measures"] = [TITLES[name] for name in measures]
        union = run.summary.get("union")
        section["union"] = describe_parts(union["dice"]["mean"], union) if union else ""
        section["calibration"] = run.calibration
        section["boxes"] = boxes(run.metrics, [name for name in PLOTTED if name in measures])
        section["by_size"] = dice_by_size(run.metrics)
        section["cases"] = _cases(run.metrics, measures)
        not_evaluated = run.summary.get("not_evaluated", {})
        section["trouble"] = [f"{case}: not evaluated: {why}" for case, why in not_evaluated.items()]
        section["trouble"] += _trouble(run.metrics)
        section["previews"] = [
            {
                "role": role,
                "case": preview.case,
                "dice": f"{preview.dice:.3f}",
                "middle": preview.middle,
                "modalities": preview.modalities,
                "colours": region_colours(preview.regions),
                "slices": slice_pictures(preview),
            }
            for role, preview in run.previews.items()
        ]
    return section


def _kind(run: RunFolder) -> str:
    if run.metrics is not None:
        return "Evaluation"
    return "Training" if run.quality is None else "Inference"


def _facts(run: RunFolder) -> dict[str, str]:
    record, config = run.record, run.record.get("config", {})
    facts = {
        "folder": str(run.folder),
        "started": record.get("started", ""),
        "run in": record.get("working_directory", ""),
        "data": str(config.get("dataset_dir", "")),
        "cases": _counts(run),
        "split": _split(run, config),
        "seed": str(record.get("seed", "")),
        "scanners": far_cases(run.journal.get("cases", {})),
    }
    if run.history is not None:
        per_epoch = run.history[run.history["epoch"] > 0].groupby("epoch")["seconds"].max()
        facts["training"] = f"{len(per_epoch)} epochs in {_duration(per_epoch.sum())}, without validation"
        memory = run.history.loc[run.history["name"] == "peak_memory_mib", "value"]
        if len(memory):
            facts["peak memory"] = f"{memory.max():.0f} MiB"
        parameters = run.history[run.history["name"].str.startswith("parameters_")]
        facts["parameters"] = ", ".join(
            f"{name.removeprefix('parameters_')} {value / 1e6:.3g} M"
            for name, value in zip(parameters["name"], parameters["value"], strict=True)
        )
        found = run.history[run.history["name"] == VALIDATION + KEY_METRIC].set_index("epoch")["value"]
        if len(found):
            facts["best validation"] = f"mean Dice {found.max():.3f} in epoch {found.idxmax()}, on the cases it reports"
    hardware = record.get("hardware", {})
    facts["hardware"] = ", ".join(
        [hardware.get("platform", ""), f"{hardware.get('cpu_threads', '?')} CPU threads", *hardware.get("cuda", [])]
    )
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    return {name: value for name, value in facts.items() if value}


def _counts(run: RunFolder) -> str:
    if run.metrics is not None:
        failed = len(run.summary.get("not_evaluated", {}))
        return f"{run.metrics['case'].nunique()} evaluated" + (f", {failed} failed and in no mean" if failed else "")
    if not run.split:
        return ""
    domains = run.record.get("config", {}).get("train_domains")
    counts = counts_of_parts(run.split, domains if isinstance(domains, list) else None)  # no expression is evaluated
    trained_on = str(counts["training"])
    if counts["unlabeled"]:
        trained_on = f"{count_text(counts['training'], counts['unlabeled'])} for"
    hidden = hidden_text(run.split)
    return f"{trained_on} training{f' ({hidden})' if hidden else ''}, {counts['validation']} validation"


def _split(run: RunFolder, config: dict[str, Any]) -> str:
    if run.metrics is not None:
        file = str(config.get("split_file", ""))
        shown = "split.json beside the weights" if file.startswith("$") else file  # an expression: the bundle's default
        return f"subset {config['subset']}, {shown}" if "subset" in config else ""
    return f"fold {config['fold']} of {config['folds']}, by subject" if {"fold", "folds"} <= config.keys() else ""


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _statistic(name: str) -> str:
    """Return the title of a column of results, with the statistic if it is not the mean."""
    return f"{TITLES[name]}, median" if name in DISTANCES else TITLES[name]


def _regions(
    run: RunFolder, measures: Sequence[str], published: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """List the statistics of each metric, failures, empty masks and published figures per region.

    The statistics are those of the table that an evaluation prints, see ``format_table``.
    """
    assert run.metrics is not None
    lines = []
    for region, of_region in summarize(run.metrics)["regions"].items():
        rows = run.metrics[run.metrics["region"] == region]
        theirs = published.get(region, {})
        lines.append(
            {
                "region": region,
                "cells": [
                    _median(rows[name].astype(float)) if name in DISTANCES else (_mean(rows[name].astype(float)), "")
                    for name in measures
                ],
                "failures": of_region["failures"],
                "empty": "/".join(str(of_region[key]) for key in ("reference_empty", "prediction_empty", "both_empty")),
                "published": ", ".join(f"{TITLES.get(name, name)} {value:g}" for name, value in theirs.items()),
            }
        )
    return lines


def _mean(values: pd.Series) -> str:
    known = values.dropna()
    if known.empty:
        return ""
    return f"{known.mean():.3f}" + (f" ± {known.std(ddof=1):.3f}" if len(known) > 1 else "")


def _median(values: pd.Series) -> tuple[str, str]:
    """Return the median of a distance as text, and the number of infinite values that it counts."""
    if values.isna().any():
        return "", "(unknown in some cases)"
    infinite = int(values.map(math.isinf).sum())
    median = float(values.median())
    return _number(median, 2), f"({infinite} infinite)" if infinite else ""


def _cases(metrics: pd.DataFrame, measures: Sequence[str]) -> list[dict[str, Any]]:
    """List one row per case and region, with each value as text and as a number to sort by."""
    return [
        {
            "case": row["case"],
            "region": row["region"],
            "failed": row["dice"] == 0,
            "cells": [(_number(row[name]), row[name]) for name in (*measures, "reference_ml", "prediction_ml")],
        }
        for row in metrics.to_dict("records")
    ]


def _trouble(metrics: pd.DataFrame) -> list[str]:
    """Describe every failure and every empty mask."""
    lines = []
    for row in metrics.to_dict("records"):
        true, found = row["reference_ml"] != 0, row["prediction_ml"] != 0
        what = {
            (True, False): "missed: the prediction is empty",
            (False, True): "false alarm: the reference is empty, the prediction is not",
            (False, False): "both masks are empty (counts as perfect)",
            (True, True): "no overlap" if row["dice"] == 0 else "",
        }[true, found]
        if what:
            lines.append(f"{row['case']}, {row['region']}: {what}")
    return lines


def _number(value: float, digits: int = 3) -> str:
    if math.isnan(value):
        return ""
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"
