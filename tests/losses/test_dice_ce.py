# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The supervised loss of ``configs/dice_ce.json``, which regions that overlap need."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.losses import DiceCELoss, DiceLoss

CONFIGS = Path(__file__).parents[2] / "configs"


def of_overlay(name):
    settings = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))["supervised_loss"]
    return ConfigParser({"loss": settings}).get_parsed_content("loss")


@pytest.mark.parametrize("regions", [1, 3])
def test_it_is_dice_plus_binary_cross_entropy_of_every_region(regions):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, regions, 8, 8, generator=generator)
    nested = (torch.rand(4, 1, 8, 8, generator=generator) > torch.linspace(0.3, 0.7, regions).view(1, -1, 1, 1)).float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = of_overlay("dice_ce")(logits, nested)
    probability = logits.sigmoid()
    overlap = (probability * nested).sum((0, 2, 3))
    dice = 1 - (2 * overlap / (probability**2 + nested**2).sum((0, 2, 3))).mean()  # over the batch
    torch.testing.assert_close(loss, dice + F.binary_cross_entropy_with_logits(logits, nested))


def test_monais_dice_ce_loss_is_the_same_for_one_region_but_couples_several():
    logits, target = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.ones(2, 2, 4, 4)
    settings = {"sigmoid": True, "squared_pred": True, "batch": True}
    one = DiceCELoss(**settings)(logits[:, :1], target[:, :1])
    torch.testing.assert_close(of_overlay("dice_ce")(logits[:, :1], target[:, :1]), one)
    high = logits.abs() + 20  # both regions are there, and both predicted
    assert of_overlay("dice_ce")(high, target) < 1e-4
    assert DiceCELoss(**settings)(high, target) - DiceLoss(**settings)(high, target) > 1, "a softmax allows only one"


def test_the_overlay_of_gliomas_has_the_same_loss():
    ours, gliomas = of_overlay("dice_ce"), of_overlay("lgg")
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    target = (logits > 0.3).float()
    assert torch.equal(ours(logits, target), gliomas(logits, target))
