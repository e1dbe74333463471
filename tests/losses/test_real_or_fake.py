# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.losses import RealOrFakeLoss
from segan_monai.networks import SegANCritics

FAKE, REAL = [torch.tensor([[0.0], [math.log(3)]])], [torch.tensor([[0.0], [0.0]])]


def test_hand_computed():
    """sigmoid is 1/2 and 3/4 for the fakes, and 1/2 for the real ones."""
    expected = math.log(1 / 2) + (math.log(1 / 2) + math.log(1 / 4)) / 2
    assert RealOrFakeLoss()([FAKE], [REAL]).item() == pytest.approx(expected)
    assert RealOrFakeLoss("wasserstein")([FAKE], [REAL]).item() == pytest.approx(-math.log(3) / 2)
    assert RealOrFakeLoss("wasserstein")([FAKE, REAL], [REAL, REAL]).item() == pytest.approx(-math.log(3) / 4)


def test_scores_of_critics():
    critics = SegANCritics(2, 3, base_channels=4, score=True)
    scores = critics(torch.rand(5, 2, 32, 32), torch.rand(5, 3, 32, 32))
    assert [[tuple(score.shape) for score in critic] for critic in scores] == [[(5, 1)]] * 3
    assert RealOrFakeLoss()(scores, scores).isfinite()


def test_bad_settings():
    with pytest.raises(ConfigError, match="kind is 'hinge'; expected 'minimax' or 'wasserstein'"):
        RealOrFakeLoss("hinge")
    features = SegANCritics(1, 1, base_channels=4)(torch.rand(2, 1, 32, 32), torch.ones(2, 1, 32, 32))
    with pytest.raises(ConfigError, match="the critic returned 4 layers; RealOrFakeLoss expects one score per image"):
        RealOrFakeLoss()(features, features)
