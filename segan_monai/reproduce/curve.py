# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Curve of Dice against the number of labelled cases."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from segan_monai.reproduce.published import ResultTable

COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")


def curve_points(runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the points of the curve.

    Args:
        runs: results of ``run_row``, with ``dice_of_cases`` (case to Dice).

    Returns:
        One line per row and number of labelled cases, in the order of the runs: ``row``, ``labels`` (NaN for all),
        ``dice`` (mean over runs of the means over cases), and ``low`` and ``high``, the lowest and highest run.
    """
    means = pd.DataFrame(
        [
            {
                "row": run["row"],
                "labels": run.get("labels", float("nan")),
                "dice": pd.Series(run["dice_of_cases"]).mean(),
            }
            for run in runs
        ],
        columns=["row", "labels", "dice"],
    )
    groups = means.groupby(["row", "labels"], sort=False, dropna=False)["dice"]
    return groups.agg(dice="mean", low="min", high="max").reset_index()


def draw_curve(table: ResultTable, runs: Sequence[Mapping[str, Any]]) -> str:
    """Draw Dice against the number of labelled cases as SVG: a line per row, and the row with all labels across.

    Bars reach from the lowest to the highest run. The axis of numbers is logarithmic, because labels cost the same each
    and help less and less.

    Returns:
        An SVG element; an empty text if no row ran with a number of labelled cases.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    points = curve_points(runs)
    numbers = sorted(points["labels"].dropna().astype(int).unique())
    if not numbers:
        return ""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasSVG(figure)
    axis = figure.subplots()
    names = list(dict.fromkeys(points["row"]))
    for index, name in enumerate(names):
        colour, found = COLOURS[index % len(COLOURS)], points[points["row"] == name]
        whole, few = found[found["labels"].isna()], found[found["labels"].notna()].sort_values("labels")
        for dice in whole["dice"]:
            axis.axhline(dice, color=colour, linestyle="--", label=f"{name}: {dice:.3f}")
        if len(few):
            # rows side by side, so that their bars do not hide each other
            places = few["labels"] * 1.02 ** (index - (len(names) - 1) / 2)
            bars = [few["dice"] - few["low"], few["high"] - few["dice"]]
            axis.errorbar(places, few["dice"], yerr=bars, color=colour, marker="o", capsize=2, label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(numbers, [str(number) for number in numbers])
    axis.minorticks_off()
    axis.set_xlabel("labelled training cases")
    axis.set_ylabel("Dice, mean of held-out cases")
    axis.set_title(table.title)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": table.name}):  # the same results give the same file
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]
