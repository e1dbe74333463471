# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Check that the label maps of a run contain the regions to learn or evaluate."""

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
    """Check each part for label maps that are all empty, and for regions that no label map contains.

    Training cases without a labelled voxel are an error: the network would learn to find nothing. The other findings
    may be intended, so they are warnings.

    Args:
        parts: ``training``, ``validation``, ... to cases.
        contents: contents of each case, see ``segan_monai.check.contents.read_contents``.
        regions: label values of each region; None if unknown.
        relabelled: whether the run maps label values by the cases' ``tissue_values``.
        report: receives the findings under ``labels``.
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
                f"nothing to {'learn' if part == 'training' else 'compare with'}. Check that they are the right "
                "files, and that their values were not lost in a conversion.",
            )
            continue
        for region, wanted in (regions or {}).items():
            if not values & set(wanted):
                report.warning(
                    "labels",
                    part,
                    f"no label map of the {labelled} {part} cases contains region {region} (label values "
                    f"{', '.join(map(str, wanted))}); found {', '.join(map(str, sorted(values)))}. If the label maps "
                    "follow another convention, pass its name or your own regions with --regions.",
                )
