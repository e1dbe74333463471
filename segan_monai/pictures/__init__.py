# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Matplotlib figures of cases, regions and networks, and handlers that draw them during a run."""

from __future__ import annotations

from segan_monai.pictures.case_picture import CasePicture, PhotographCasePicture
from segan_monai.pictures.localization_panel import LocalizationPanel
from segan_monai.pictures.normalization_panel import NormalizationPanel
from segan_monai.pictures.overlay_picture import OverlayPicture
from segan_monai.pictures.photograph_picture import PhotographPicture
from segan_monai.pictures.roi_picture import RoIPicture

__all__ = [
    "CasePicture",
    "LocalizationPanel",
    "NormalizationPanel",
    "OverlayPicture",
    "PhotographCasePicture",
    "PhotographPicture",
    "RoIPicture",
]
