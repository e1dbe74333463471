# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses that the players share."""

from segan_monai.losses.exclusive import ExclusiveClassLoss
from segan_monai.losses.localization import CoarseSegmentationLoss, LocalizationLoss, distance_iou
from segan_monai.losses.multi_scale_l1 import MultiScaleL1Loss

__all__ = ["CoarseSegmentationLoss", "ExclusiveClassLoss", "LocalizationLoss", "MultiScaleL1Loss", "distance_iou"]
