# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the label maps of a run hold, taken together, what it is to learn or to judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segan_monai.check.cases import Parts, Regions
from segan_monai.check.report import Report


def check_learnable(
    parts: Parts,
    contents: Mapping[str, Mapping[str, Any]],
    regions: Regions | None,
    relabelled: bool,
    report: Report,
) -> None:
    """Look for parts whose label maps are all empty, and for regions that no label map of a part holds.

    A training without a labelled voxel is an error: it would end with a network that finds nothing. Anything else may
    be meant, so it is a warning.

    Args:
        parts: ``training``, ``validation``, ... to cases.
        contents: of each case, see `segan_monai.check.contents.read_contents`.
        regions: label values of each region; None if nobody knows them.
        relabelled: whether the run gives label maps new values by the cases' ``tissue_values``.
        report: gets its findings under ``labels``.
    """
    for part, cases in parts.items():
        values: set[int] = set()
        labelled = 0
        for case in cases:
            pairs = contents.get(case["case"], {}).get("labels")
            if pairs is None:
                continue
            labelled += 1
            tissues = case.get("tissue_values") if relabelled else None
            becomes = {int(value): tissue for value, tissue in (tissues or {}).items()}
            values |= {becomes.get(int(value), int(value)) for value, _ in pairs}
        values.discard(0)
        if not labelled:
            continue
        if not values:
            (report.error if part == "training" else report.warning)(
                "labels",
                part,
                f"all {labelled} label maps of the {part} cases are empty: every voxel is background, so there is "
                f"nothing to {'learn' if part == 'training' else 'compare with'}. See whether they are the right "
                "files, and whether their values were lost when they were converted.",
            )
            continue
        for region, wanted in (regions or {}).items():
            if not values & set(wanted):
                report.warning(
                    "labels",
                    part,
                    f"no label map of the {labelled} {part} cases holds region {region} (label values "
                    f"{', '.join(map(str, wanted))}); found are {', '.join(map(str, sorted(values)))}. See whether "
                    "the label maps follow another convention: its name or regions of your own go with --regions.",
                )
