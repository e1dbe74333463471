# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""SVG figures of a report."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from segan_monai.report.history import LAYERS, VALIDATION

TITLE_SIZE, LABEL_SIZE = 12, 10.5  # readable when three panels are scaled to the width of the page
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "precision",
    "sensitivity": "sensitivity",
    "hd95_mm": "HD95 in mm",
    "assd_mm": "ASSD in mm",
    "roi_iou": "IoU of boxes",
}


def curves(history: pd.DataFrame, phase: str) -> str:
    """Plot loss terms or validation metrics over the epochs, with one panel per name.

    Args:
        history: table returned by ``read_history``.
        phase: prefix of the names: ``training/`` or ``validation/``.
    """
    names = curve_names(history, phase)
    if not names:
        return ""
    validation = phase == VALIDATION
    columns = min(len(names), 4)
    figure, axes = _figure(-(-len(names) // columns), columns, 2.9, 2.0)
    for index, name in enumerate(names):
        axis = axes.flat[index]
        values = history[history["name"] == name].groupby("epoch")["value"].last()
        axis.plot(values.index, values, color=COLOURS[1 if validation else 0], marker="." if len(values) < 40 else None)
        axis.set_title(name.removeprefix(phase), fontsize=TITLE_SIZE)
        if validation and values.notna().any():
            best = values.idxmin() if _is_better_if_less(name.removeprefix(phase)) else values.idxmax()
            axis.plot([best], [values[best]], "o", color=COLOURS[1])
            axis.margins(y=0.25)  # room for the value
            axis.annotate(f"{values[best]:.3f}", (best, values[best]), fontsize=LABEL_SIZE, ha="right", va="bottom")
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    return _svg(figure, "epoch")


def _is_better_if_less(metric: str) -> bool:
    return metric == "loss" or metric.startswith("jsd_")


def layer_shares(history: pd.DataFrame) -> str:
    """Plot the share of each layer of the critics in the loss and in its gradient on the prediction, over the epochs.

    Args:
        history: table returned by ``read_history``.

    Returns:
        The SVG; empty if the shares were not measured.
    """
    if not curve_names(history, LAYERS):
        return ""
    figure, axes = _figure(1, 2, 3.6, 2.2)
    for axis, kind in zip(axes.flat, ("loss", "gradient"), strict=True):
        for index, name in enumerate(curve_names(history, f"{LAYERS}{kind}_")):
            values = history[history["name"] == name].groupby("epoch")["value"].last()
            layer = int(name.rsplit("_", 1)[1])
            label = "masked image" if layer == 0 else f"layer {layer}"
            marker = "." if len(values) < 40 else None
            axis.plot(values.index, values, color=COLOURS[index % len(COLOURS)], label=label, marker=marker)
        axis.set_title(f"share of the {kind}", fontsize=9)
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.3)
    axes.flat[-1].legend(fontsize=7)
    return _svg(figure, "epoch")


def curve_names(history: pd.DataFrame, phase: str) -> list[str]:
    """Return the names of a phase in order of first occurrence."""
    return [name for name in dict.fromkeys(history["name"]) if name.startswith(phase)]


def boxes(metrics: pd.DataFrame, measures: Sequence[str]) -> str:
    """Plot one panel per metric, with a box plot per region and a point per case.

    Points have the case's name as a tooltip. Infinite distances are drawn as crosses at the upper edge.
    """
    regions = list(dict.fromkeys(metrics["region"]))
    shown = [name for name in measures if name in metrics and metrics[name].notna().any()]
    columns = min(len(shown), 3)
    figure, axes = _figure(-(-len(shown) // columns), columns, 1.6 + 1.0 * len(regions), 2.8)
    for axis, name in zip(axes.flat, shown, strict=False):
        finite = [_finite(metrics, region, name) for region in regions]
        axis.boxplot(
            [values["value"] for values in finite], widths=0.55, showfliers=False, medianprops={"color": "black"}
        )
        largest = max((values["value"].max() for values in finite if len(values)), default=1.0)
        for position, (region, values) in enumerate(zip(regions, finite, strict=True), start=1):
            spread = np.random.default_rng(0).uniform(-0.18, 0.18, len(values))
            for offset, (case, value) in zip(spread, values.itertuples(index=False), strict=True):
                (point,) = axis.plot(
                    position + offset, value, "o", ms=3.2, alpha=0.6, color=COLOURS[(position - 1) % 8]
                )
                point.set_gid(f"{case}: {value:.3g}")
            infinite = metrics[(metrics["region"] == region) & np.isinf(metrics[name].astype(float))]
            if len(infinite):
                axis.plot([position], [largest * 1.08], "x", color="#b00020")
                axis.annotate(
                    f"{len(infinite)} infinite",
                    (position, largest * 1.08),
                    xytext=(-5, -3),
                    textcoords="offset points",
                    ha="right",
                    fontsize=LABEL_SIZE,
                    color="#b00020",
                )
        axis.set_xticks(range(1, len(regions) + 1), [region.replace("_", "\n") for region in regions])
        axis.set_title(TITLES.get(name, name), fontsize=TITLE_SIZE)
        axis.grid(axis="y", alpha=0.3)
        if not name.endswith("_mm"):
            axis.set_ylim(-0.03, 1.03)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    return _with_tooltips(_svg(figure))


def dice_by_size(metrics: pd.DataFrame) -> str:
    """Plot Dice against the size of the reference, with one panel per region: small lesions are the hardest.

    Titles have Spearman's rank correlation. Sizes are in ml, or in voxels where the spacing is unknown. Cases with an
    empty reference are omitted.

    Returns:
        The SVG; empty unless some region has references of three sizes or more.
    """
    unit = "ml" if metrics["reference_ml"].notna().all() else "voxels"
    size = f"reference_{unit}"
    if size not in metrics:  # a file of an earlier version
        return ""
    known = metrics[metrics[size] > 0]
    groups = {region: rows for region, rows in known.groupby("region", sort=False) if rows[size].nunique() > 2}
    if not groups:
        return ""
    columns = min(len(groups), 4)
    figure, axes = _figure(-(-len(groups) // columns), columns, 2.9, 2.4)
    for index, (region, rows) in enumerate(groups.items()):
        axis = axes.flat[index]
        for case, volume, dice in rows[["case", size, "dice"]].itertuples(index=False):
            (point,) = axis.plot(volume, dice, "o", ms=3.2, alpha=0.6, color=COLOURS[index % len(COLOURS)])
            point.set_gid(f"{case}: {volume:.6g} {unit}, Dice {dice:.3f}")
        varies = rows["dice"].nunique() > 1
        correlation = f", Spearman {rows[size].corr(rows['dice'], method='spearman'):.2f}" if varies else ""
        axis.set_title(f"{region}{correlation}", fontsize=TITLE_SIZE)
        if rows[size].max() > 10 * rows[size].min():  # else labels of a logarithmic axis overlap
            axis.set_xscale("log")
        axis.set_ylim(-0.03, 1.03)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(groups) :]:
        axis.set_axis_off()
    return _with_tooltips(_svg(figure, f"size of the reference in {unit}"))


def _finite(metrics: pd.DataFrame, region: str, name: str) -> pd.DataFrame:
    rows = metrics.loc[metrics["region"] == region, ["case", name]].set_axis(["case", "value"], axis=1)
    return rows[np.isfinite(rows["value"].astype(float))]


def _figure(rows: int, columns: int, width: float, height: float):
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows))
    FigureCanvasSVG(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.tick_params(labelsize=LABEL_SIZE)
    return figure, axes


def _svg(figure, label: str | None = None) -> str:
    if label:
        figure.supxlabel(label, fontsize=TITLE_SIZE)
    figure.tight_layout(pad=0.4)  # once; a layout engine would draw the figure twice
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _with_tooltips(svg: str) -> str:
    """Convert the ids of the points to titles, which browsers show as tooltips."""
    return re.sub(r'<g id="([^"]*: [^"]*)">', r"<g><title>\1</title>", svg)
