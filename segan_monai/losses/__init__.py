# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses that the players share."""

from segan_monai.losses.exclusive import ExclusiveClassLoss
from segan_monai.losses.multi_scale_l1 import MultiScaleL1Loss

__all__ = ["ExclusiveClassLoss", "MultiScaleL1Loss"]
