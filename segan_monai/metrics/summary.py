# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Summaries of an evaluation: a text table, ``metrics.csv`` and ``summary.json``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segan_monai.files import whole_file
from segan_monai.json_files import write_json
from segan_monai.metrics.overlap import EMPTY_MASK_RULE
from segan_monai.metrics.parts import PARTS, describe_parts, summarize_parts

Regions = Mapping[str, Sequence[int]]

OVERLAPS = ("dice", "iou", "precision", "sensitivity")
DISTANCES = ("hd95_mm", "assd_mm")
SHAPES = tuple(
    f"{mask}_{shape}"
    for shape in ("voxels", "components", "surface_to_volume_per_mm")
    for mask in ("reference", "prediction")
)
COLUMNS = ("case", "region", *OVERLAPS, *DISTANCES, "reference_ml", "prediction_ml", *SHAPES)
FAILURE_RULE = "A case fails in a region when exactly one of the two masks is empty, or when they do not overlap."


def evaluation_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of ``evaluate_case`` as a table with ``COLUMNS``, and with ``PARTS`` if any row has them."""
    found = list(rows)
    parts = PARTS if any(PARTS[0] in row for row in found) else ()
    return pd.DataFrame(found, columns=[*COLUMNS, *parts])


def summarize(
    table: pd.DataFrame, regions: Regions | None = None, prediction_regions: Regions | None = None
) -> dict[str, Any]:
    """Compute mean, standard deviation, median and counts for every region.

    Args:
        table: result of ``evaluate_folders``.
        regions: label values of every region, included in the summary.
        prediction_regions: the same for the predictions; by default ``regions``.

    Returns:
        A JSON-compatible dictionary. Each region has:

        - ``cases``, and the counts ``reference_empty`` and ``prediction_empty``, which both include ``both_empty``;
        - ``failures`` (see ``FAILURE_RULE``), the sum of ``only_reference_empty``, ``only_prediction_empty`` and
          ``no_overlap``, and their names ``failed_cases``;
        - for each metric, ``mean``, ``standard_deviation`` (of the sample; null for one case) and ``median``;
        - for each distance, also ``infinite``, the number of infinite values, and ``mean_of_finite``;
        - for the shape of the masks (``SHAPES``), the statistics of the masks that are not empty.

        ``union`` has the Dice of all regions together and the shares of wrong voxels at its outline and between the
        regions, see ``summarize_parts``; only for two or more regions that share no label value.

        Values that are infinite, or unknown because there is no spacing, are null.
    """
    summary: dict[str, Any] = {
        "cases": int(table["case"].nunique()),
        "empty_mask_rule": EMPTY_MASK_RULE,
        "failure_rule": FAILURE_RULE,
        "regions": {},
    }
    for region, rows in table.groupby("region", sort=False):
        definition = {}
        if regions is not None:
            definition = {
                "reference_values": [int(value) for value in regions[region]],
                "prediction_values": [int(value) for value in (prediction_regions or regions)[region]],
            }
        no_reference, no_prediction = rows["reference_ml"] == 0, rows["prediction_ml"] == 0
        failed = rows["dice"] == 0
        summary["regions"][region] = {
            **definition,
            "cases": len(rows),
            "reference_empty": int(no_reference.sum()),
            "prediction_empty": int(no_prediction.sum()),
            "both_empty": int((no_reference & no_prediction).sum()),
            "failures": int(failed.sum()),
            "only_reference_empty": int((no_reference & ~no_prediction).sum()),
            "only_prediction_empty": int((no_prediction & ~no_reference).sum()),
            "no_overlap": int((failed & ~no_reference & ~no_prediction).sum()),
            "failed_cases": rows["case"][failed].tolist(),
            **{name: _statistics(rows[name].to_numpy(float)) for name in OVERLAPS},
            **{name: _statistics_with_infinite(rows[name].to_numpy(float)) for name in DISTANCES},
            **{
                name: _statistics(rows.loc[~empty, name].to_numpy(float))
                for name in SHAPES
                if name in rows  # not in files of earlier versions
                for empty in [no_reference if name.startswith("reference") else no_prediction]
            },
        }
    if union := summarize_parts(table):
        summary["union"] = {**union, "dice": _statistics(union["dice"].to_numpy(float))}
    return summary


def dice_of_domains(table: pd.DataFrame, domain_of_case: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return the mean Dice by domain and region.

    Args:
        table: ``metrics.csv``, or the result of ``evaluate_folders``.
        domain_of_case: the domain of each case, such as its scanner; cases without one are in no mean.
    """
    means = table.groupby([table["case"].map(domain_of_case), "region"], sort=False)["dice"].mean()
    return {domain: means[domain].to_dict() for domain in dict.fromkeys(means.index.get_level_values(0))}


def _statistics(values: np.ndarray) -> dict[str, float | None]:
    """Compute statistics of values; None where the result is not finite or undefined."""
    if not len(values):
        return {"mean": None, "standard_deviation": None, "median": None}
    finite, median = bool(np.isfinite(values).all()), float(np.median(values))
    return {
        "mean": float(values.mean()) if finite else None,
        "standard_deviation": float(values.std(ddof=1)) if finite and len(values) > 1 else None,
        "median": median if np.isfinite(median) else None,
    }


def _statistics_with_infinite(values: np.ndarray) -> dict[str, float | int | None]:
    infinite = np.isinf(values)
    unknown, finite = bool(np.isnan(values).any()), values[~infinite]
    return {
        **_statistics(values),
        "infinite": int(infinite.sum()),
        "mean_of_finite": float(finite.mean()) if len(finite) and not unknown else None,
    }


def write_evaluation(
    table: pd.DataFrame,
    output_dir: str | os.PathLike[str],
    regions: Regions | None = None,
    prediction_regions: Regions | None = None,
    not_evaluated: Mapping[str, str] | None = None,
    region_rules_chosen_on: Sequence[str] = (),
) -> None:
    """Write ``metrics.csv`` and ``summary.json`` (see ``summarize``) to ``output_dir``.

    In the CSV file, infinite distances are ``inf`` and unknown values are empty. Columns of the shape and of
    the parts that ``table`` lacks are omitted. The cases in ``not_evaluated``, with the reasons, are added to the
    summary, as are the evaluated cases on which post-processing was chosen.
    """
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    with whole_file(output_dir / "metrics.csv") as file:
        table.to_csv(
            file,
            columns=[name for name in (*COLUMNS, *PARTS) if name in table or name not in (*SHAPES, *PARTS)],
            index=False,
            float_format="%.9g",
        )
    summary = summarize(table, regions, prediction_regions)
    if not_evaluated:
        summary["not_evaluated"] = dict(not_evaluated)
    if region_rules_chosen_on:
        summary["region_rules_chosen_on"] = list(region_rules_chosen_on)
    write_summary(output_dir / "summary.json", summary)


def read_metrics(folder: Path) -> pd.DataFrame:
    """Return ``metrics.csv`` of an evaluation: names as text, even "NA" and "1"; unknown values as NaN."""
    file, names = folder / "metrics.csv", ["case", "region"]
    values = {name: ["", "nan"] for name in pd.read_csv(file, nrows=0) if name not in names}
    return pd.read_csv(file, dtype=dict.fromkeys(names, str), keep_default_na=False, na_values=values)


def remove_evaluation(folder: Path) -> None:
    """Remove the results of an earlier evaluation, and the report that shows them, where a new one has none."""
    for name in ("metrics.csv", "summary.json", "report.html"):
        (folder / name).unlink(missing_ok=True)


def write_summary(file: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json`` atomically; NaN, which JSON does not allow, raises ValueError."""
    write_json(file, summary, allow_nan=False)


def format_table(table: pd.DataFrame) -> str:
    """Format the evaluation as a plain-text table with one row per region, followed by the failed cases.

    - Dice, IoU, precision and sensitivity are means; Dice also has the sample standard deviation and the median.
    - Distances are medians, which stay finite while fewer than half of the cases fail. They are omitted if the spacing
      of any case is unknown.
    """
    distances = {} if table[list(DISTANCES)].isna().any(axis=None) else {"HD95": "hd95_mm", "ASSD": "assd_mm"}
    lines, notes = [], ["empty: references/predictions/both."]
    if distances:
        notes[0] = f"HD95 and ASSD are medians, in mm. {notes[0]}"
    summary = summarize(table)
    by_region = summary["regions"]
    if union := summary.get("union"):
        notes.append(describe_parts(union["dice"]["mean"], union))
    without = [region for region, found in by_region.items() if found["reference_empty"] == found["cases"]]
    if without and len(without) == len(by_region):
        notes.append("warning: all references are empty. Are these the right label maps, and do the regions fit them?")
    elif without:
        notes.append(f"warning: no reference holds {listed(without)}. Do the label values of the regions fit?")
    for region, of_region in by_region.items():
        spread = of_region["dice"]["standard_deviation"]
        lines.append(
            {
                "region": region,
                "cases": of_region["cases"],
                "Dice": f"{of_region['dice']['mean']:.3f}" + ("" if spread is None else f" ± {spread:.3f}"),
                "median": f"{of_region['dice']['median']:.3f}",
                "IoU": f"{of_region['iou']['mean']:.3f}",
                "precision": f"{of_region['precision']['mean']:.3f}",
                "sensitivity": f"{of_region['sensitivity']['mean']:.3f}",
                **{
                    title: "inf" if of_region[name]["median"] is None else f"{of_region[name]['median']:.2f}"
                    for title, name in distances.items()
                },
                "failures": of_region["failures"],
                "empty": "/".join(
                    str(of_region[name]) for name in ("reference_empty", "prediction_empty", "both_empty")
                ),
            }
        )
        if of_region["failures"]:
            notes.append(f"failures in {region}: {listed(of_region['failed_cases'])}")
    return "\n".join([pd.DataFrame(lines).to_string(index=False), *notes])


def listed(items: Iterable[Any], most: int = 8) -> str:
    """Join the first items, and add the number of further ones."""
    names = [str(item) for item in items]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
