# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Inferers, which apply networks to images and volumes."""

from segan_monai.inferers.agreement import Agreement
from segan_monai.inferers.finite import FiniteInferer
from segan_monai.inferers.normalizing import NormalizingWindowInferer
from segan_monai.inferers.roi_slices import RoISliceInferer
from segan_monai.inferers.slices import VolumeSliceInferer
from segan_monai.inferers.volumes import volume_inferer
from segan_monai.inferers.windows import VolumeWindowInferer

__all__ = [
    "Agreement",
    "FiniteInferer",
    "NormalizingWindowInferer",
    "RoISliceInferer",
    "VolumeSliceInferer",
    "VolumeWindowInferer",
    "volume_inferer",
]
