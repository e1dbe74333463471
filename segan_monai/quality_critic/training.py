# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Training of the quality critic on predictions, right masks and corrupted masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.quality_critic.cases import CriticCase
from segan_monai.quality_critic.corruptions import KINDS, corrupted
from segan_monai.quality_critic.network import CriticNetwork

LEARNING_RATE = 0.01
CASES_PER_STEP, SLICES_PER_CASE = 4, 4
PREDICTIONS, RIGHT = 0.4, 0.1
"""Shares of the steps' masks that are predictions, and the truth itself; the rest is corrupted [ours]."""
NOISE, CONTRAST = 0.03, 0.1


def train_critic(cases: Sequence[CriticCase], steps: int, seed: int) -> nn.Module:
    """Train a critic on all given cases.

    Args:
        cases: at least two.
        steps: number of optimizer steps, of 16 slices each.
        seed: of initialization and sampling.

    Returns:
        The network, in evaluation mode.
    """
    random = np.random.RandomState(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CriticNetwork(cases[0].stack.image.shape[1], cases[0].truth.shape[1])
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(steps, 2))
        network.train()
        for _ in range(steps):
            images, masks, truths, known = _batch(cases, random)
            logits = network(torch.cat([images, masks], 1))
            loss = (F.binary_cross_entropy_with_logits(logits, truths, reduction="none") * known).sum()
            optimizer.zero_grad()
            (loss / known.sum().clamp(min=1)).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def _batch(cases: Sequence[CriticCase], random: np.random.RandomState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images (N, C, S, S), masks, truths and where these are known (N, K, S, S each)."""
    parts = [_slices(cases, int(random.randint(len(cases))), random) for _ in range(CASES_PER_STEP)]
    images, masks, truths, known = (torch.cat(of_cases) for of_cases in zip(*parts, strict=True))
    return images, masks, truths, known


def _slices(cases: Sequence[CriticCase], index: int, random: np.random.RandomState) -> tuple[Tensor, ...]:
    case = cases[index]
    masks = mask_of(cases, index, random)
    chosen = torch.from_numpy(random.choice(case.truth.shape[0], SLICES_PER_CASE))
    image = case.stack.image[chosen]
    content = (image != 0).float()
    image = image * float(random.uniform(1 - CONTRAST, 1 + CONTRAST))
    image = image + NOISE * content * torch.from_numpy(random.standard_normal(image.shape)).float()
    return image, masks[chosen], case.truth[chosen], case.known[chosen]


def mask_of(cases: Sequence[CriticCase], index: int, random: np.random.RandomState) -> Tensor:
    """Return a mask (D, K, S, S) of a case: its prediction, its truth, or its truth corrupted."""
    case, share = cases[index], random.rand()
    if share < PREDICTIONS:
        return case.prediction
    if share < PREDICTIONS + RIGHT:
        return case.truth
    return corrupted_mask(cases, index, str(random.choice(KINDS)), random)


def corrupted_mask(cases: Sequence[CriticCase], index: int, kind: str, random: np.random.RandomState) -> Tensor:
    """Return the truth of a case with a corruption."""
    others = [other for other in range(len(cases)) if other != index]
    return corrupted(cases[index].truth, kind, cases[int(random.choice(others))].truth, random)
