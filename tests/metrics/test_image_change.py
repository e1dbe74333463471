# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from segan_monai.metrics.image_change import structural_similarity, total_variation


def ramp(shape=(1, 7, 7, 7)):
    """Values 1 to 7 along the first axis: one window, mean 4, variance 4, range 6."""
    return torch.arange(1.0, 8).view(1, 7, 1, 1).expand(shape).clone()


def test_one_window_by_hand():
    image = ramp()
    assert structural_similarity(image, image) == pytest.approx(1, abs=1e-5)
    c1, c2 = (0.01 * 6) ** 2, (0.03 * 6) ** 2
    # twice the contrast: mean 8, variance 16, covariance 8
    expected = (2 * 8 * 4 + c1) / (64 + 16 + c1) * (2 * 8 + c2) / (16 + 4 + c2)
    assert structural_similarity(2 * image, image) == pytest.approx(expected, rel=1e-4)
    # inverted, 8 - x: the same mean and variance, covariance -4
    assert structural_similarity(8 - image, image) == pytest.approx((-8 + c2) / (8 + c2), rel=1e-4)


def test_what_is_outside_the_content_does_not_count():
    original, image = torch.zeros(1, 30, 20, 9), torch.zeros(1, 30, 20, 9)
    original[:, 4:11, 5:12, 1:8], image[:, 4:11, 5:12, 1:8] = ramp(), 8 - ramp()
    c2 = (0.03 * 6) ** 2
    assert structural_similarity(image, original) == pytest.approx((-8 + c2) / (8 + c2), rel=1e-4)


def test_an_image_that_is_thinner_than_a_window_has_a_value_and_one_without_contrast_has_none():
    thin = ramp((1, 7, 7, 2))
    assert structural_similarity(thin, thin) == pytest.approx(1, abs=1e-5)
    assert math.isnan(structural_similarity(thin, torch.full_like(thin, 3)))
    assert math.isnan(structural_similarity(thin, torch.zeros_like(thin)))


def test_total_variation_counts_pairs_inside():
    image = torch.tensor([[0.0, 1, 4], [0, 3, 3]]).view(1, 2, 3, 1)
    inside = image > 0
    # pairs: 1 and 4, 3 and 3 along rows; 1 and 3, 4 and 3 across them
    assert total_variation(image, inside) == pytest.approx((3 + 0 + 2 + 1) / 4)
    assert total_variation(image, torch.ones_like(inside)) == pytest.approx((1 + 3 + 3 + 0 + 0 + 2 + 1) / 7)
    assert math.isnan(total_variation(image, torch.zeros_like(inside)))
