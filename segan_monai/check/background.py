# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Check of the background: 0 outside the brain, as ``skull_stripped`` says, or noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from segan_monai.check.report import Report
from segan_monai.transforms.head_intensity import NOISY_SHARE

RULE = "background"


def check_background(contents: Mapping[str, Mapping[str, Any]], skull_stripped: bool, report: Report) -> None:
    """Warn if the background of most cases is not what ``skull_stripped`` says.

    Args:
        contents: result of ``segan_monai.check.contents.read_contents``.
        skull_stripped: the setting of the run.
        report: receives one row, and a warning with the first noisy case.
    """
    noise = {name: float(np.mean(found["noise"])) for name, found in contents.items() if found.get("noise")}
    if not noise:
        return
    noisy = [name for name, share in noise.items() if share > NOISY_SHARE]
    median = float(np.median(list(noise.values())))
    report.note(RULE, f"{median:.0%} of the voxels are noise (median); skull_stripped is {str(skull_stripped).lower()}")
    if skull_stripped and len(noisy) > len(noise) / 2:
        report.warning(
            RULE,
            noisy[0],
            f"the images of {len(noisy)} of {len(noise)} cases are not skull-stripped: a median of {median:.0%} of "
            "their voxels are noise of the background, which skull_stripped takes for the brain. Add --skull_stripped "
            "false, or strip them first.",
        )
