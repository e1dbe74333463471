# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from segan_monai.quality_critic import CriticNetwork, critic_signals
from segan_monai.quality_critic.network import dice_of


class Known(torch.nn.Module):
    """Expects the truth that its image is."""

    def forward(self, x):
        return torch.logit(x[:, :1], eps=1e-6)


def test_signals_follow_from_the_expected_truth():
    truth, mask = torch.zeros(2, 1, 16, 16), torch.zeros(2, 1, 16, 16)
    truth[:, :, 4:8, 4:12] = 1  # 2 x 32 voxels
    mask[0, :, 4:8, 4:12] = 1  # 32 of them
    mask[0, :, 15, 15] = 1  # and one of its own
    (signals,) = critic_signals(Known(), truth, mask, 0.5)
    assert signals["critic_dice"] == pytest.approx((2 * 32 + 1) / (33 + 64 + 1), abs=1e-3)
    assert signals["critic_precision"] == pytest.approx(33 / 34, abs=1e-3)
    assert signals["critic_sensitivity"] == pytest.approx(33 / 65, abs=1e-3)
    assert signals["largest_part"] == pytest.approx(32 / 33)
    assert signals["log_ml"] == pytest.approx(math.log(0.1 + 33 * 0.5))


def test_an_empty_mask_is_right_where_nothing_is_expected():
    nothing = torch.zeros(2, 1, 16, 16)
    (right,) = critic_signals(Known(), nothing, nothing, 1.0)
    (wrong,) = critic_signals(Known(), torch.ones(2, 1, 16, 16), nothing, 1.0)
    assert right["critic_dice"] == pytest.approx(1, abs=1e-2)
    assert wrong["critic_dice"] < 0.01


def test_the_dice_of_shares():
    half = torch.full((2, 2), 0.5)
    assert dice_of(half, half) == 1
    assert dice_of(half, torch.ones(2, 2)) == pytest.approx(2 * 2 / 6)
    assert dice_of(half * 0, half * 0) == 1


def test_the_network_is_small_and_looks_at_image_and_mask():
    torch.manual_seed(0)
    network = CriticNetwork(3, 2).eval()
    assert sum(p.numel() for p in network.parameters()) * 4 < 5e6
    x = torch.rand(2, 5, 32, 32)
    assert network(x).shape == (2, 2, 32, 32)
    for channel in (0, 4):
        changed = x.clone()
        changed[:, channel] = 0
        assert not torch.allclose(network(changed), network(x))
