# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Figures of a sweep as SVG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from segan_monai.sweep.results import STATES, SweepTrial
from segan_monai.sweep.space import Space

COLOURS = dict(zip(STATES, ("#0072b2", "#e69f00", "#999999", "#d55e00"), strict=True))


def in_order_of_starts(trials: Iterable[SweepTrial]) -> list[SweepTrial]:
    """Return trials in the order of their first starts; their names are random."""
    return sorted(trials, key=lambda trial: (trial.started, trial.name))


def progress(trials: Sequence[SweepTrial], metric: str, largest: bool) -> str:
    """Plot the value of each trial in the order of their starts, and the best so far."""
    shown = in_order_of_starts(trial for trial in trials if trial.value is not None)
    figure, (axis,) = _figure(1, 6.4, 3.0)
    for state, colour in COLOURS.items():
        points = [(number, trial.value) for number, trial in enumerate(shown, 1) if trial.state == state]
        if points:
            axis.plot(*zip(*points, strict=True), "o", color=colour, label=state)
    best = np.maximum.accumulate if largest else np.minimum.accumulate
    values = np.array([trial.value for trial in shown], float)
    axis.step(range(1, len(shown) + 1), best(values), where="post", color="#000000")
    axis.set_xlabel("trial, in the order of their starts")
    axis.set_ylabel(metric)
    axis.grid(alpha=0.3)
    axis.legend()
    return _svg(figure)


def importance_bars(shares: Mapping[str, float]) -> str:
    """Plot the importance of each key, the most important first."""
    if not shares:
        return ""
    names = sorted(shares, key=lambda key: shares[key])
    figure, (axis,) = _figure(1, 6.4, 0.8 + 0.35 * len(names))
    bars = axis.barh(names, [shares[name] for name in names], color="#0072b2")
    axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.set_xlim(0, 1.1)
    axis.set_xlabel("share of the variance between trials")
    return _svg(figure)


def parallel_coordinates(trials: Sequence[SweepTrial], space: Space, metric: str, largest: bool) -> str:
    """Plot one line per trial through its settings to its value; the darker, the better."""
    import matplotlib as mpl

    shown = [trial for trial in reversed(trials) if trial.value is not None]  # the best above the others
    keys = list(space.ranges)
    figure, axes = _figure(1, max(6.4, 1.7 * (len(keys) + 1)), 3.6)
    axis = axes[0]
    values = np.array([trial.value for trial in shown], float)
    spread = float(np.ptp(values)) or 1.0
    heights = (values - values.min()) / spread
    places = [[_height(space.ranges[key], trial.settings[key]) for key in keys] for trial in shown]
    colours = mpl.colormaps["Blues"](0.25 + 0.75 * (heights if largest else 1 - heights))
    for line, height, colour in zip(places, heights, colours, strict=True):
        axis.plot(range(len(keys) + 1), [*line, height], color=colour)
    for number, key in enumerate(keys):
        for text, place in _ticks(space.ranges[key]):
            axis.text(number, place, f" {text}", fontsize=8, va="center")
    for place in (0.0, 1.0):
        axis.text(len(keys), place, f" {values.min() + place * spread:.3g}", fontsize=8, va="center")
    axis.set_xticks(range(len(keys) + 1), [*keys, metric], rotation=15, ha="right")
    axis.set_yticks([])
    axis.set_xlim(-0.1, len(keys) + 0.4)
    axis.grid(axis="x", color="#000000", alpha=0.4)
    for side in ("top", "left", "right", "bottom"):
        axis.spines[side].set_visible(False)
    return _svg(figure)


def _height(given: Mapping[str, Any], value: Any) -> float:
    """Return the place of a value between 0 and 1."""
    if "choices" in given:
        return given["choices"].index(value) / (len(given["choices"]) - 1)
    ends = np.array([given["low"], given["high"], value], float)
    low, high, place = np.log(ends) if given.get("log") else ends
    return float((place - low) / (high - low))


def _ticks(given: Mapping[str, Any]) -> list[tuple[str, float]]:
    if "choices" in given:
        return [(str(choice), _height(given, choice)) for choice in given["choices"]]
    return [(f"{given[limit]:g}", _height(given, given[limit])) for limit in ("low", "high")]


def _figure(columns: int, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "segan-monai"}):  # the same results give the same page
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]
