# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Choice of post-processing on the out-of-fold predictions of all folds together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segan_monai.ensembles import read_predictions
from segan_monai.folds.maps import labelled_cases, mean_map, regions_of
from segan_monai.folds.runs import FoldRun
from segan_monai.handlers.region_rule_choice import choose_rules, dice_of_case
from segan_monai.reproduce import Plan
from segan_monai.trained import write_region_rules


def choose_region_rules(plan: Plan, runs: Sequence[FoldRun]) -> dict[str, Any]:
    """Choose a rule per region by the mean Dice of all out-of-fold cases, and write it beside the weights.

    Rules and candidates are those of ``RegionRuleChoice``, which chooses on the validation cases of one training. The
    settings of all folds receive the same rules, so their ensemble applies them. Those of an ensemble of configurations
    are written nowhere, because its members have rules of their own; pass them as ``--region_rules``.

    Args:
        plan: the settings shared by all rows.
        runs: all folds of the chosen configuration or ensemble, with saved probability maps.

    Returns:
        ``rules`` by region, empty if none helps; ``regions``, with ``dice_before`` and ``dice_after``; and ``cases``.
    """
    regions = regions_of(runs)
    dice: list[np.ndarray] = []
    cases: list[str] = []
    for run in runs:
        members = run.members or (run,)
        predictions = [read_predictions(member.evaluation) for member in members]
        for case, settings in labelled_cases(plan, members[0]):
            shape = (len(regions), *case["label"].shape[1:])
            maps = mean_map(predictions, case["case"], shape)
            dice.append(dice_of_case(case, maps, regions, settings["ignore_label"]))
            cases.append(case["case"])
    rules, gains = choose_rules(dice, regions)
    chosen = {"cases": sorted(set(cases)), "regions": gains}
    for run in runs:
        if not run.members:
            write_region_rules(run.training / "model.pt", rules, chosen)
    return {"rules": rules, **chosen}


def describe_rules(chosen: Mapping[str, Any]) -> str:
    """Return a paragraph on the result of ``choose_region_rules``."""
    parts = []
    for region, gain in chosen["regions"].items():
        rule = ", ".join(f"{name} {value:g}" for name, value in chosen["rules"].get(region, {}).items())
        change = f"Dice {gain['dice_before']:.4f} to {gain['dice_after']:.4f}"
        parts.append(f"{region}: {f'{rule} ({change})' if rule else 'no rule helps'}")
    return (
        f"Post-processing of the chosen configuration, by the Dice of all {len(chosen['cases'])} cases: "
        f"{'; '.join(parts)}. Each region is judged by itself, before all are merged into one label map. The tables "
        "are of label maps without it."
    )
