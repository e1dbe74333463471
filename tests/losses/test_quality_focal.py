# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The focal loss of soft targets, beside MONAI's."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceFocalLoss, FocalLoss

from segan_monai.errors import ConfigError
from segan_monai.losses import DiceQualityFocalLoss, QualityFocalLoss

PROBABILITIES = torch.linspace(0.005, 0.995, 199)


def best(loss, target):
    """The probability with the smallest loss; a pixel of known target keeps the Dice term from being free of scale."""
    values = [
        float(loss(torch.logit(torch.tensor([[p, 0.999, 0.001]])), torch.tensor([[target, 1.0, 0.0]])))
        for p in PROBABILITIES.tolist()
    ]
    return PROBABILITIES[values.index(min(values))].item()


@pytest.mark.parametrize("target", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("loss", [QualityFocalLoss(), QualityFocalLoss(0.0), DiceQualityFocalLoss(lambda_dice=0.2)])
def test_it_is_smallest_where_the_prediction_is_the_target(loss, target):
    assert best(loss, target) == pytest.approx(target, abs=0.0051)


def test_that_of_monai_is_smallest_at_the_ends():
    assert best(FocalLoss(gamma=2.0), 0.7) > 0.99
    assert best(FocalLoss(gamma=2.0), 0.3) < 0.01


def test_by_hand():
    found = QualityFocalLoss()(torch.logit(torch.tensor([0.5, 0.9])), torch.tensor([0.25, 1.0]))
    expected = (0.0625 * math.log(2) + 0.01 * -math.log(0.9)) / 2
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_same_as_monai_for_targets_of_0_and_1():
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 3, 8, 9, generator=generator), torch.rand(2, 3, 8, 9, generator=generator).round()
    monai = DiceFocalLoss(sigmoid=True, squared_pred=True, batch=True, lambda_focal=0.7, lambda_dice=0.2)
    torch.testing.assert_close(DiceQualityFocalLoss(0.7, 0.2)(logits, target), monai(logits, target))


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="gamma is -1; expected 0"):
        QualityFocalLoss(-1)
    with pytest.raises(ConfigError, match=r"lambda_dice -0\.2; expected weights of 0 or more"):
        DiceQualityFocalLoss(lambda_dice=-0.2)
