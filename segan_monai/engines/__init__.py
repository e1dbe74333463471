# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainers of several networks in turn."""

from segan_monai.engines.adversarial import AdversarialSegmentationTrainer, NonFiniteLossError, has_fast_bfloat16
from segan_monai.engines.adversarial_normalization import AdversarialNormalizationTrainer
from segan_monai.engines.case_evaluator import CaseEvaluator, FailedCasesError
from segan_monai.engines.lsnet import LSNetTrainer, decay_gradient
from segan_monai.engines.segan import SegANTrainer
from segan_monai.engines.segmentation import SegmentationTrainer

__all__ = [
    "AdversarialNormalizationTrainer",
    "AdversarialSegmentationTrainer",
    "CaseEvaluator",
    "FailedCasesError",
    "LSNetTrainer",
    "NonFiniteLossError",
    "SegANTrainer",
    "SegmentationTrainer",
    "decay_gradient",
    "has_fast_bfloat16",
]
