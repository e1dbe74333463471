# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Labels of training cases that a run hides in part: regions of some cases, and all slices but a few."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from segan_monai.data.unlabeled import without_label
from segan_monai.errors import ConfigError

Case = dict[str, Any]


def hide_regions(
    training: Sequence[Case],
    missing_regions: Mapping[str, float] | None,
    regions: Collection[str],
    seed: int,
    by: str = "case",
) -> tuple[list[Case], list[Case]]:
    """Hide regions of some training cases, as if these had not been labelled for them [ours].

    The cases are shuffled as for ``labeled_cases``, and the last ones lack the region. All regions are of one order, so
    the cases that lack the region of a smaller share also lack that of a larger one, and ``labeled_cases`` with as many
    cases as have every region names these.

    Args:
        training: labelled cases; they stay as they are.
        missing_regions: share of the cases that lack a region, above 0 and below 1, by its name; None for none.
        regions: names of all regions.
        seed: of the shuffle.
        by: ``case``; or ``subject`` for shares of the subjects, all of whose cases lack the region.

    Returns:
        Cases that keep some regions or all, with the field ``labelled_regions`` where they lack one; and copies of the
        others without ``label``.

    Raises:
        ConfigError: unknown region, or a share that is of no case or of all.
    """
    if not missing_regions:
        return list(training), []
    names = sorted({case[by] for case in training})
    random.Random(f"{seed} labeled").shuffle(names)
    lacking: dict[str, set[str]] = {}
    for region, share in missing_regions.items():
        if region not in regions:
            raise ConfigError(f"missing_regions names {region}; expected some of {', '.join(regions)}.")
        complete = len(names) - round(share * len(names))
        if not 0 < complete < len(names):
            raise ConfigError(
                f"missing_regions has {share} for {region}, which is {len(names) - complete} of {len(names)} training "
                f"{by}s; expected a share, such as 0.5, that is at least one of them and not all."
            )
        lacking[region] = set(names[complete:])
    kept, without = [], []
    for case in training:
        before = case.get("labelled_regions", regions)
        left = [region for region in before if case[by] not in lacking.get(region, ())]
        if not left:
            without.append(without_label(case))
        else:
            kept.append(case if len(left) == len(before) else {**case, "labelled_regions": left})
    return kept, without


def without_complete_lists(cases: Sequence[Case], regions: Collection[str]) -> list[Case]:
    """Return the cases, without the field ``labelled_regions`` where it lists all regions: that label map is complete.

    Args:
        cases: any cases; they stay as they are.
        regions: names of all regions; empty if they are unknown.
    """
    every = set(regions)
    return [
        {key: value for key, value in case.items() if key != "labelled_regions"}
        if every and set(case.get("labelled_regions", ())) == every
        else case
        for case in cases
    ]


def with_annotated_slices(training: Sequence[Case], number: int | None, seed: int) -> list[Case]:
    """Return copies of training cases of whose labels only some slices are known, see ``LabelToRegionsd`` [ours].

    Args:
        training: labelled cases.
        number: of annotated axial slices per case; None for all.
        seed: of the draw of these slices, which also depends on the name of the case.

    Raises:
        ConfigError: ``number`` is below 1.
    """
    if number is None:
        return list(training)
    if number < 1:
        raise ConfigError(f"annotated_slices is {number}; expected at least 1, or null for all slices.")
    return [{**case, "annotated_slices": {"number": number, "seed": seed}} for case in training]


def hidden_text(record: Mapping[str, Any]) -> str:
    """Return what a split hides of the labels of its training cases: ``1 annotated slice per case``; empty for nothing.

    Args:
        record: what ``read_split`` returns.
    """
    number, missing = record.get("annotated_slices"), record.get("missing_regions") or {}
    slices = [f"{number} annotated slice{'s' * (number > 1)} per case"] if number else []
    return ", ".join([*slices, *(f"{region} missing in {share:.0%}" for region, share in missing.items())])
