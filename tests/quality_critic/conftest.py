# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from segan_monai.quality_critic import CriticCase, Stack

REGIONS = ["left", "right"]


def critic_case(number, groups):
    """A bright disc per region, and a prediction that misses a part of it."""
    random = np.random.RandomState(number)
    rows, columns = np.mgrid[:16, :16]
    truth = np.zeros((4, 2, 16, 16), np.float32)
    for region in range(2):
        centre = random.randint(4, 7) + 0.0, 4 + 8.0 * region
        truth[:, region] = np.hypot(rows - centre[0], columns - centre[1]) < random.uniform(2, 3.5)
    image = 0.2 + 0.8 * truth.sum(1, keepdims=True) + 0.05 * random.standard_normal((4, 1, 16, 16))
    prediction = truth.copy()
    cut = random.randint(3, 7)
    prediction[:, :, :cut] = 0
    dice = [2 * (prediction[:, k]).sum() / (prediction[:, k].sum() + truth[:, k].sum()) for k in range(2)]
    masks = [torch.from_numpy(values) for values in (prediction, truth, np.ones_like(truth))]
    stack = Stack(torch.from_numpy(image.astype(np.float32)), masks, 1.0)
    features = {"T1 0.5": random.normal(0.5, 0.1), "extent 0": 3.0}
    return CriticCase(f"c{number}", number % groups, stack, features, dict(zip(REGIONS, map(float, dice), strict=True)))


@pytest.fixture(scope="session")
def critic_cases():
    """Twenty cases of three groups."""
    return [critic_case(number, 3) for number in range(20)]
