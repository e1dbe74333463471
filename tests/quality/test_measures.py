# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from segan_monai.quality.measures import aurc, spearman, without_order


def test_aurc_is_the_mean_risk_of_the_most_confident():
    dice = np.array([0.9, 0.6, 0.3])
    assert aurc(np.array([3, 2, 1]), dice) == pytest.approx((0.1 + 0.25 + 0.4) / 3)
    assert aurc(np.array([1, 2, 3]), dice) == pytest.approx((0.7 + 0.55 + 0.4) / 3)
    assert aurc(np.zeros(3), dice) == pytest.approx(0.4), "no confidence is as good as the mean"


def test_spearman_of_constants_is_zero():
    assert spearman(np.array([1, 2, 3]), np.array([0.1, 0.5, 0.6])) == pytest.approx(1)
    assert spearman(np.zeros(3), np.array([0.1, 0.5, 0.6])) == 0


def test_regions_that_are_not_ranked_are_named():
    (text,) = without_order({"head": {"spearman": 0.001}, "tail": {"spearman": -0.2}})
    assert text.startswith("the expected Dice of tail does not rank the cases of the fit (Spearman -0.200)")
