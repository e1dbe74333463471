# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Results by domain of runs of the normalization bundle: Dice, realism of the normalized images, and D's accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from segan_monai.json_files import read_json_object
from segan_monai.metrics.summary import dice_of_domains

LAST_EPOCHS = 0.1
"""Share of the epochs over which the accuracy of the discriminator is averaged, the last ones [ours]."""
ACCURACY, CHANCE = "training/accuracy_", "training/accuracy_chance"
REALISM = {
    "ssim_to_input": "SSIM to input",
    "total_variation_ratio": "total variation, normalized / input",
    "jsd_input_nats": "JSD of inputs",
    "jsd_normalized_nats": "JSD of normalized",
    "discriminator_accuracy": "accuracy of D",
    "discriminator_chance": "chance",
}


def read_accuracy(history: pd.DataFrame) -> dict[str, float]:
    """Read the mean accuracy of the discriminator over its classes, and that of chance.

    Both are means over the last tenth of the epochs, because an epoch may be a single batch.

    Args:
        history: ``history.csv`` of a training.

    Returns:
        ``discriminator_accuracy`` and ``discriminator_chance``; nothing for a training without a discriminator.
    """
    last = history[history["epoch"] > history["epoch"].max() * (1 - LAST_EPOCHS)]
    of_classes = last["name"].str.startswith(ACCURACY) & (last["name"] != CHANCE)
    if not of_classes.any():
        return {}
    chance = last.loc[last["name"] == CHANCE, "value"].mean()
    return {
        "discriminator_accuracy": float(last.loc[of_classes, "value"].mean()),
        "discriminator_chance": float(chance),
    }


def read_domains(evaluation: Path, metrics: pd.DataFrame, repeat: str) -> dict[str, Any]:
    """Read the Dice of each domain and how much the normalizer changed the images, if the bundle has domains.

    Args:
        evaluation: output folder of the evaluation.
        metrics: its ``metrics.csv``.
        repeat: what to do if ``normalization.json`` is damaged.

    Returns:
        ``dice_of_domains``, the mean Dice by domain and region; ``ssim_to_input`` and ``total_variation_ratio``, means
        over the domains of those of their cases; ``jsd_input_nats`` and ``jsd_normalized_nats``, of whole images.
        Without ``normalization.json``, nothing; of these, what is undefined is omitted.
    """
    file = evaluation / "normalization.json"
    if not file.is_file():
        return {}
    record = read_json_object(file, repeat)
    dice = dice_of_domains(metrics, {case: found["domain"] for case, found in record["cases"].items()})
    ssim, ratios = [], []
    for change in record["change"].values():
        before, after = change["total_variation_input"], change["total_variation_normalized"]
        if change["ssim_to_input"] is not None:
            ssim.append(change["ssim_to_input"])
        if before and after is not None:
            ratios.append(after / before)
    divergence = record["jensen_shannon_divergence_nats"]
    several = len(dice) > 1  # one domain has no divergence
    return {
        "dice_of_domains": dice,
        **({"ssim_to_input": fmean(ssim)} if ssim else {}),
        **({"total_variation_ratio": fmean(ratios)} if ratios else {}),
        **({f"jsd_{stage}_nats": divergence[stage]["whole image"] for stage in divergence} if several else {}),
    }


def domain_rows(by_row: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, str]]:
    """Return the cells by domain, one line per row of a table; no line if no run has domains.

    Args:
        by_row: runs, results of ``run_row``, by the name of their line.

    Returns:
        Means over the runs: one column per domain with the Dice of all regions, and ``REALISM``.
    """
    with_domains = {row: [run for run in runs if "dice_of_domains" in run] for row, runs in by_row.items()}
    found = [
        (domain, dice)
        for runs in with_domains.values()
        for run in runs
        for domain, dice in run["dice_of_domains"].items()
    ]
    regions: dict[str, dict[str, None]] = {}  # those that a run has a labelled case for, in a fixed order
    for domain, dice in found:
        regions.setdefault(domain, {}).update(dict.fromkeys(dice))
    titles = {domain: f"Dice {domain}, {'/'.join(names)}" for domain, names in regions.items()}
    return [
        {
            "by domain": row,
            **{title: _dice(runs, domain, regions[domain]) for domain, title in titles.items()},
            **{title: _mean([run[name] for run in runs if name in run]) for name, title in REALISM.items()},
        }
        for row, runs in with_domains.items()
        if runs
    ]


def _dice(runs: Sequence[Mapping[str, Any]], domain: str, regions: Iterable[str]) -> str:
    found = [run["dice_of_domains"][domain] for run in runs if domain in run["dice_of_domains"]]
    means = [_mean([of_run[region] for of_run in found if region in of_run]) for region in regions]
    return "/".join(means) if found else ""


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f}" if values else ""
