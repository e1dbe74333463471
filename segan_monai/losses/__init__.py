# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Loss functions."""

from segan_monai.losses.consistency import ConsistencyLoss
from segan_monai.losses.domain_adversarial import DomainAdversarialLoss
from segan_monai.losses.exclusive import ExclusiveClassLoss
from segan_monai.losses.known_pixels import loss_of_known_pixels
from segan_monai.losses.localization import CoarseSegmentationLoss, LocalizationLoss, distance_iou
from segan_monai.losses.multi_scale_l1 import MultiScaleL1Loss
from segan_monai.losses.patch_score import PatchScoreLoss
from segan_monai.losses.quality_focal import DiceQualityFocalLoss, QualityFocalLoss
from segan_monai.losses.real_or_fake import RealOrFakeLoss
from segan_monai.losses.unpaired_l1 import UnpairedL1Loss
from segan_monai.losses.weighted_dice import WeightedDiceLoss

__all__ = [
    "CoarseSegmentationLoss",
    "ConsistencyLoss",
    "DiceQualityFocalLoss",
    "DomainAdversarialLoss",
    "ExclusiveClassLoss",
    "LocalizationLoss",
    "MultiScaleL1Loss",
    "PatchScoreLoss",
    "QualityFocalLoss",
    "RealOrFakeLoss",
    "UnpairedL1Loss",
    "WeightedDiceLoss",
    "distance_iou",
    "loss_of_known_pixels",
]
