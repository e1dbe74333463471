# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Estimates how good each segmentation is, without its reference: expected Dice, lower bound and flag."""

from segan_monai.quality.calibration_counts import CalibrationCountsd
from segan_monai.quality.estimate import FitCase, QualityModel, fit_quality
from segan_monai.quality.file import can_estimate_quality, has_quality_file, quality_file, read_quality, write_quality
from segan_monai.quality.measures import held_out_estimates, without_order
from segan_monai.quality.signals import image_features, quality_without_fit, region_signals
from segan_monai.quality.table import read_evaluations, write_signals
from segan_monai.quality.transforms import QualitySignalsd

__all__ = [
    "CalibrationCountsd",
    "FitCase",
    "QualityModel",
    "QualitySignalsd",
    "can_estimate_quality",
    "fit_quality",
    "has_quality_file",
    "held_out_estimates",
    "image_features",
    "quality_file",
    "quality_without_fit",
    "read_evaluations",
    "read_quality",
    "region_signals",
    "without_order",
    "write_quality",
    "write_signals",
]
