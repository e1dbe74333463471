# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The estimated quality of an inference's cases, with pictures of the worst."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segan_monai.metrics.summary import listed
from segan_monai.report.folder import RunFolder

PICTURES = 6
NAMED = 8
"""Largest number of cases that a sentence names."""


def quality_of_cases(run: RunFolder) -> dict[str, Any]:
    """Return what the page shows of ``quality.csv``: worst first.

    Flagged cases come before others, then those of the lowest bound.

    Returns:
        ``summary``, a sentence; ``lines``, the rows of the table; ``pictures``: name, flag and embedded picture of each
        of the worst cases that has one.
    """
    assert run.quality is not None
    table = run.quality.assign(usual=run.quality["flag"] == "").sort_values(["usual", "lower_bound"], kind="stable")
    lines = table.drop(columns="usual").to_dict("records")
    flagged = table.loc[~table["usual"], "case"].nunique()
    pictures: list[tuple[str, str, str]] = []
    for case, rows in table.groupby("case", sort=False):
        file = run.folder / f"{case}_overlay.png"
        if file.is_file() and len(pictures) < PICTURES:
            flags = [f"{region}: {flag}" for region, flag in zip(rows["region"], rows["flag"], strict=True) if flag]
            worst = rows["lower_bound"].min()
            pictures.append((f"{case}, lower bound {worst:.3f}", ", ".join(flags), embedded(file)))
    count = table["case"].nunique()
    return {"summary": f"{flagged} of {count} cases are flagged.", "lines": lines, "pictures": pictures}


def far_cases(lines: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a sentence on the cases that are far from every training domain; empty if none is.

    Args:
        lines: by case, its line of ``inference.json``, with ``nearest_domain`` if ``ScannerCheck`` compared it.
    """
    nearest = {case: found for case, line in lines.items() if (found := line.get("nearest_domain"))}
    far = [f"{case} (nearest: {found['domain']})" for case, found in nearest.items() if found["far"]]
    if not far:
        return ""
    return f"{len(far)} of {len(nearest)} cases are unlike every training domain: {listed(far, NAMED)}; inspect them"


def embedded(file: Path) -> str:
    """Return a PNG file as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
