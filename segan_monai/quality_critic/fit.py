# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Fit of the quality critic: networks that have not seen the patient give the signals of a regression to the Dice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from tqdm import tqdm

from segan_monai.quality import FitCase, QualityModel, fit_quality, held_out_estimates
from segan_monai.quality.measures import HeldOut
from segan_monai.quality_critic.cases import CriticCase
from segan_monai.quality_critic.corruptions import KINDS
from segan_monai.quality_critic.network import critic_signals, dice_of
from segan_monai.quality_critic.training import corrupted_mask, train_critic

GROUPS = 5
"""Groups of patients; as many networks are trained without one of them."""
CORRUPTED_PER_CASE = 3
"""Corrupted masks of each case to which the regression is fitted, and on which it is measured."""


@dataclass(frozen=True)
class FittedCritic:
    """Result of ``fit_critic``.

    Attributes:
        network: trained on all cases.
        model: from its signals to expected Dice, lower bound and flag.
        predictions: estimates of the predictions by region, each without its patient.
        corrupted: the same of corrupted masks.
    """

    network: nn.Module
    model: QualityModel
    predictions: dict[str, HeldOut]
    corrupted: dict[str, HeldOut]


def fit_critic(cases: Sequence[CriticCase], regions: Sequence[str], steps: int, seed: int = 0) -> FittedCritic:
    """Fit a quality critic.

    Each group of patients gets its signals from a network that is trained on all others. A regression from these
    signals to the Dice is fitted to predictions and corrupted masks, and its lower bound and limits to the predictions
    alone. The network that is kept is trained on all cases.

    Args:
        cases: out-of-fold cases of at least two groups.
        regions: names of the K regions.
        steps: optimizer steps of each of the networks.
        seed: of initialization, sampling and corruptions.
    """
    predictions: list[FitCase] = []
    wrong: list[FitCase] = []
    groups = sorted({case.group for case in cases})
    for group in tqdm([*groups, None], desc="quality critic", unit="network", disable=None):
        network = train_critic([case for case in cases if case.group != group], steps, seed)
        for index, case in enumerate(cases):
            if case.group != group:
                continue
            predictions.append(_fit_case(network, case, case.prediction, regions, case.dice))
            random = np.random.RandomState([seed, index])
            for kind in random.choice(KINDS, CORRUPTED_PER_CASE, replace=False):
                mask = corrupted_mask(cases, index, str(kind), random)
                wrong.append(_fit_case(network, case, mask, regions, _dice(case, mask, regions)))
    return FittedCritic(
        network,
        fit_quality(predictions, wrong),
        held_out_estimates(predictions, wrong),
        held_out_estimates(predictions, wrong, wrong),
    )


def _dice(case: CriticCase, mask: Tensor, regions: Sequence[str]) -> dict[str, float]:
    """Return the Dice of a corrupted mask for the regions whose truth is known."""
    found = {}
    for index, region in enumerate(regions):
        if not math.isnan(case.dice.get(region, math.nan)):
            known = case.known[:, index]
            found[region] = dice_of(mask[:, index] * known, case.truth[:, index] * known)
    return found


def _fit_case(
    network: nn.Module, case: CriticCase, mask: Tensor, regions: Sequence[str], dice: Mapping[str, float]
) -> FitCase:
    signals = critic_signals(network, case.stack.image, mask, case.stack.voxel_ml)
    return FitCase(case.group, case.features, dict(zip(regions, signals, strict=True)), dice, case.name)
