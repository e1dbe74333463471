# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Ignite handlers for checkpoints, logs, reports and monitoring."""

from __future__ import annotations

from segan_monai.handlers.calibration_report import CalibrationReport
from segan_monai.handlers.case_journal import CaseJournal
from segan_monai.handlers.domain_profiles import DomainProfiles, ScannerCheck
from segan_monai.handlers.epoch_log import EpochLog
from segan_monai.handlers.evaluation_report import EvaluationReport
from segan_monai.handlers.inference_cost import InferenceCost
from segan_monai.handlers.live_view import LiveView
from segan_monai.handlers.lr_schedule import LrSchedule
from segan_monai.handlers.normalization_report import NormalizationReport
from segan_monai.handlers.patch_report import PatchReport
from segan_monai.handlers.quality_signals import QualitySignals
from segan_monai.handlers.region_rule_choice import RegionRuleChoice
from segan_monai.handlers.roi_report import RoIReport
from segan_monai.handlers.run_checkpoint import RunCheckpoint
from segan_monai.handlers.run_progress import RunProgress
from segan_monai.handlers.run_report import RunReport
from segan_monai.handlers.tracked_run import TrackedRun
from segan_monai.handlers.training_handlers import TrainingHandlers
from segan_monai.handlers.validate import FinalValidationHandler
from segan_monai.pictures.case_picture import CasePicture, PhotographCasePicture
from segan_monai.pictures.localization_panel import LocalizationPanel
from segan_monai.pictures.normalization_panel import NormalizationPanel
from segan_monai.pictures.overlay_picture import OverlayPicture
from segan_monai.pictures.photograph_picture import PhotographPicture
from segan_monai.pictures.roi_picture import RoIPicture

__all__ = [
    "CalibrationReport",
    "CaseJournal",
    "CasePicture",
    "DomainProfiles",
    "EpochLog",
    "EvaluationReport",
    "FinalValidationHandler",
    "InferenceCost",
    "LiveView",
    "LocalizationPanel",
    "LrSchedule",
    "NormalizationPanel",
    "NormalizationReport",
    "OverlayPicture",
    "PatchReport",
    "PhotographCasePicture",
    "PhotographPicture",
    "QualitySignals",
    "RegionRuleChoice",
    "RoIPicture",
    "RoIReport",
    "RunCheckpoint",
    "RunProgress",
    "RunReport",
    "ScannerCheck",
    "TrackedRun",
    "TrainingHandlers",
]
