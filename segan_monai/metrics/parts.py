# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the error of regions that share no voxel lies: at the outline of their union, or between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from segan_monai.metrics.overlap import overlap_metrics

PARTS = ("union_dice", "wrong_voxels", "confused_voxels")
"""Columns of ``metrics.csv`` for evaluations of two or more regions that share no label value."""


def are_parts(regions: Mapping[str, Sequence[int]]) -> bool:
    """Return whether there are two or more regions, and no label value is in two of them."""
    values = [value for of_region in regions.values() for value in set(of_region)]
    return len(regions) > 1 and len(values) == len(set(values))


def part_errors(predictions: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """Tell the errors at the outline of the union from the confusion of its parts.

    Args:
        predictions: boolean masks of one shape by region, without common voxels.
        references: masks of the same shape and regions.

    Returns:
        By region, the columns ``PARTS``:

        - ``union_dice``: Dice of the union of all regions, the same for every region;
        - ``wrong_voxels``: voxels in only one of the region's two masks;
        - ``confused_voxels``: those of them that are in another region in the other label map. All others are
          background there, so they lie at the outline of the union.
    """
    predicted, true = (np.logical_or.reduce(list(masks.values())) for masks in (predictions, references))
    dice, both = overlap_metrics(predicted, true)["dice"], predicted & true
    result = {}
    for region, prediction in predictions.items():
        wrong = prediction ^ references[region]
        counts = int(np.count_nonzero(wrong)), int(np.count_nonzero(wrong & both))
        result[region] = dict(zip(PARTS, (dice, *counts), strict=True))
    return result


def summarize_parts(table: pd.DataFrame) -> dict[str, Any] | None:
    """Summarize the union and its errors over all cases.

    Args:
        table: rows of an evaluation.

    Returns:
        ``regions``, ``dice`` of the union by case, ``wrong_voxels`` of the label maps, and the shares of them
        ``at_outline`` and ``between_regions`` (null if no voxel is wrong); None without the columns ``PARTS``. A voxel
        that is in another region is wrong once, not once per region.
    """
    if not set(PARTS) <= set(table):
        return None
    known = table.dropna(subset=list(PARTS))
    if known.empty:
        return None
    confused = int(known["confused_voxels"].sum()) // 2
    outline = int(known["wrong_voxels"].sum()) - 2 * confused
    wrong = confused + outline
    return {
        "regions": list(dict.fromkeys(known["region"])),
        "dice": known.groupby("case", sort=False)["union_dice"].mean(),
        "wrong_voxels": wrong,
        "at_outline": outline / wrong if wrong else None,
        "between_regions": confused / wrong if wrong else None,
    }


def describe_parts(dice: float, summary: Mapping[str, Any]) -> str:
    """Return a sentence on the union and its errors.

    Args:
        dice: mean Dice of the union.
        summary: ``regions`` and shares, as in ``summarize_parts``.
    """
    text = f"All regions together ({', '.join(summary['regions'])}): Dice {dice:.3f}."
    if summary["at_outline"] is None:
        return f"{text} No voxel is wrong."
    return (
        f"{text} Of the wrong voxels, {summary['at_outline']:.0%} are background in one of the two label "
        f"maps, and {summary['between_regions']:.0%} are in another region."
    )
