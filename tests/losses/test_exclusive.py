# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import torch
from monai.losses import DiceCELoss

from segan_monai.losses import ExclusiveClassLoss

REGIONS = {"whole": [1, 2], "core": [2]}


def test_cross_entropy_by_hand():
    maps = torch.tensor([[0, 1, 1], [0, 0, 1]]).float().reshape(1, 2, 1, 3)  # background, whole, core
    logits = torch.zeros(1, 3, 1, 3)
    logits[0, 2, 0, 1] = math.log(2)  # 1/4, 2/4, 1/4 at the second pixel
    loss = ExclusiveClassLoss(REGIONS, torch.nn.CrossEntropyLoss())(logits, maps)
    torch.testing.assert_close(loss, torch.tensor((2 * math.log(3) + math.log(2)) / 3))


def test_the_right_classes_cost_nothing_and_others_do():
    maps = torch.tensor([[0, 1, 1], [0, 0, 1]]).float().reshape(1, 2, 1, 3)
    right = 100 * torch.eye(3)[[0, 2, 1]].reshape(1, 3, 1, 3)
    loss = ExclusiveClassLoss(REGIONS, DiceCELoss(softmax=True, include_background=False, batch=True))
    assert loss(right, maps) < 1e-4
    assert loss(right.flip(1), maps) > 10
