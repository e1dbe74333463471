# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Previews of cases with known Dice scores."""

from __future__ import annotations

import numpy as np

from segan_monai.report import CasePreview

DICE = {"a": 0.9, "b": 0.0, "c": 0.7, "d": 1.0}


def preview(case: str, slices: int = 3) -> CasePreview:
    """Slices of 20 x 30 with a square that is found one voxel too far to the right."""
    image = np.zeros((slices, 2, 20, 30), np.uint8)
    image[:, :, 5:15, 5:15] = 200
    reference = np.zeros((slices, 1, 20, 30), bool)
    reference[:, :, 5:15, 5:15] = True
    return CasePreview(
        case, DICE[case], ["T1", "<FLAIR>"], ["lesion"], image, reference, np.roll(reference, 1, axis=-1),
        aspect=2.0, middle=1, boxes=[[[4.0, 4.0, 16.0, 16.0]]] * slices,
    )  # fmt: skip
