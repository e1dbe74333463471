# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.losses import PatchScoreLoss


def test_hinge_by_hand():
    loss = PatchScoreLoss("hinge")
    predicted, true = [torch.tensor([-2.0, 0.5]), torch.tensor([0.0, 0.0])], [torch.tensor([2.0, 0.0])] * 2
    # per critic: true (0 + 1) / 2; predicted (0 + 1.5) / 2 and 1
    assert loss(predicted, true).item() == pytest.approx((0.5 + 0.75 + 0.5 + 1) / 2)
    assert loss.for_segmentor(predicted).item() == pytest.approx((0.75 + 0) / 2)


def test_least_squares_by_hand():
    loss = PatchScoreLoss("least_squares")
    predicted, true = [torch.tensor([0.0, 2.0])], [torch.tensor([1.0, 3.0])]
    assert loss(predicted, true).item() == pytest.approx(4 / 2 + 4 / 2)
    assert loss.for_segmentor(predicted).item() == pytest.approx((1 + 1) / 2)


def test_unknown_kind():
    with pytest.raises(ConfigError, match=r"patch_loss is 'wgan'; expected 'hinge' or 'least_squares'\."):
        PatchScoreLoss("wgan")
