# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Schedules of the weights of loss terms."""

from __future__ import annotations

import math


def ramp(epochs: float, length: float) -> float:
    """Return the share of its weight that a loss term has, exp(-5 (1 - t)^2): Laine and Aila (2017), Section 3.

    Args:
        epochs: epochs since the term began, fractions included; negative before.
        length: epochs t = 1 takes; 0 for the full weight from the start.

    Returns:
        0 before the start, then 0.0067 rising to 1.

    Examples:
        >>> [round(ramp(epochs, 10), 4) for epochs in (-1, 0, 5, 10, 20)]
        [0.0, 0.0067, 0.2865, 1.0, 1.0]
    """
    if epochs < 0:
        return 0.0
    t = min(epochs / length, 1.0) if length else 1.0
    return math.exp(-5 * (1 - t) ** 2)
