# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Published figures beside the results of a run, only where data and regions are those of the publication."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segan_monai.report.folder import RunFolder


@dataclass(frozen=True)
class Published:
    """Published figures that a report shows.

    Attributes:
        note: the source, or why the figures are not shown; empty if the config names none.
        values: published value by region and metric.
    """

    note: str = ""
    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def published_figures(run: RunFolder) -> Published:
    """Return the figures of the config's ``published`` that the results of an evaluation can stand beside.

    The figures of a region are returned if

    - the data are not simulated,
    - the names of all evaluated cases match the regular expression ``published#cases``, if it is given,
    - the region has the label values of ``published#regions``, if they are given.
    """
    published = run.record.get("config", {}).get("published") or {}
    source, values = str(published.get("source", "")), published.get("values") or {}
    if not values or run.metrics is None:
        return Published()
    if run.simulated:
        return Published("No published figures are shown, because these data are simulated.")
    pattern = published.get("cases")
    if pattern and not all(re.fullmatch(pattern, name) for name in run.metrics["case"].unique()):
        return Published(f"Not shown, because the cases are named otherwise than those of the publication: {source}.")
    shown = {region: figures for region, figures in values.items() if _is_same_region(region, published, run.summary)}
    if not shown:
        return Published(f"Not shown, because the regions are not those of the publication: {source}.")
    return Published(f"Published: {source}.", shown)


def _is_same_region(region: str, published: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
    expected = (published.get("regions") or {}).get(region)
    found = summary.get("regions", {}).get(region, {}).get("reference_values", [])
    return expected is None or sorted(expected) == sorted(found)
