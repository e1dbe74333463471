# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Adversarial trainers."""

from segan_monai.engines.adversarial import AdversarialSegmentationTrainer, NonFiniteLossError, has_fast_bfloat16
from segan_monai.engines.adversarial_normalization import AdversarialNormalizationTrainer
from segan_monai.engines.segan import SegANTrainer

__all__ = [
    "AdversarialNormalizationTrainer",
    "AdversarialSegmentationTrainer",
    "NonFiniteLossError",
    "SegANTrainer",
    "has_fast_bfloat16",
]
