# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest

from segan_monai.engines.schedule import ramp


@pytest.mark.parametrize(
    ("epochs", "length", "expected"),
    [(-0.1, 4, 0), (0, 4, math.exp(-5)), (1, 4, math.exp(-5 * 0.75**2)), (4, 4, 1), (9, 4, 1), (0, 0, 1), (-1, 0, 0)],
)
def test_ramp(epochs, length, expected):
    assert ramp(epochs, length) == pytest.approx(expected)
