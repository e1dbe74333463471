# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainers and evaluators."""

from segan_monai.engines.adversarial_normalization import AdversarialNormalizationTrainer
from segan_monai.engines.case_evaluator import CaseEvaluator, FailedCasesError
from segan_monai.engines.domain_adaptation import DomainAdaptationTrainer
from segan_monai.engines.loss_watch import NonFiniteLossError
from segan_monai.engines.lsnet import LSNetTrainer, decay_gradient
from segan_monai.engines.parameters import clamp_weights, frozen
from segan_monai.engines.phased import PhasedTrainer
from segan_monai.engines.reconstruction import ReconstructionTrainer
from segan_monai.engines.segan import SegANTrainer
from segan_monai.engines.segmentation import SegmentationTrainer
from segan_monai.engines.semi_supervised import SemiSupervisedTrainer
from segan_monai.engines.semi_supervised_lsnet import SemiSupervisedLSNetTrainer
from segan_monai.engines.weight_average import WeightAverage

__all__ = [
    "AdversarialNormalizationTrainer",
    "CaseEvaluator",
    "DomainAdaptationTrainer",
    "FailedCasesError",
    "LSNetTrainer",
    "NonFiniteLossError",
    "PhasedTrainer",
    "ReconstructionTrainer",
    "SegANTrainer",
    "SegmentationTrainer",
    "SemiSupervisedLSNetTrainer",
    "SemiSupervisedTrainer",
    "WeightAverage",
    "clamp_weights",
    "decay_gradient",
    "frozen",
]

AdversarialSegmentationTrainer = PhasedTrainer  # its former name
