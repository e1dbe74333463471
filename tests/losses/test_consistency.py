# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.losses import ConsistencyLoss


def test_mse_by_hand():
    p, q = torch.tensor([[[0.2, 0.6]]]), torch.tensor([[[0.5, 1.0]]])
    assert ConsistencyLoss("mse")(p, q).item() == pytest.approx((0.09 + 0.16) / 2)


def test_dice_is_over_the_batch_and_averaged_over_classes():
    p = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.0, 0.0]]])  # 2 images, 2 classes, 2 pixels
    q = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.0, 0.0]]])
    # class 0: 1 - 2 * 1 / (2 + 2); class 1: equal
    assert ConsistencyLoss("dice")(p, q).item() == pytest.approx(0.25, abs=1e-4)


@pytest.mark.parametrize("kind", ["mse", "dice"])
def test_equal_predictions_cost_nothing_and_the_teacher_has_no_gradient(kind):
    p, q = torch.full((1, 1, 4), 0.3, requires_grad=True), torch.full((1, 1, 4), 0.3, requires_grad=True)
    assert ConsistencyLoss(kind)(p, q).item() == pytest.approx(0, abs=1e-5)
    ConsistencyLoss(kind)(p, 2 * q).backward()
    assert p.grad.abs().max() > 0
    assert q.grad is None


def test_unknown_kind():
    with pytest.raises(ConfigError, match=r"consistency_loss is 'kl'; expected 'mse' or 'dice'\."):
        ConsistencyLoss("kl")
