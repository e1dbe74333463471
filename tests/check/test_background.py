# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from segan_monai.check.background import check_background
from segan_monai.check.contents import read_contents
from segan_monai.check.report import Report
from segan_monai.transforms import LoadCased


def findings(cases, tmp_path, skull_stripped):
    report = Report()
    contents = read_contents(cases, LoadCased(["image", "label"]), "", tmp_path / "r" / "cases.jsonl", 1)
    check_background(contents, skull_stripped, report)
    return {(f.rule, f.level, f.where): f.message for f in report.findings}


def in_noise(voxels):
    return np.where(np.arange(len(voxels))[:, None, None] < 3, 2, voxels)  # 3 of 8 planes


def test_noise_around_heads_is_not_skull_stripped(cases, tmp_path, rewrite):
    for case in cases[:4]:
        rewrite(case["image"], in_noise)
    found = findings(cases, tmp_path, skull_stripped=True)
    assert list(found) == [("background", "warning", "c0")]
    assert "of 4 of 6 cases are not skull-stripped: a median of 38% of" in found["background", "warning", "c0"]
    assert "--skull_stripped false" in found["background", "warning", "c0"]
    assert findings(cases, tmp_path, skull_stripped=False) == {}


@pytest.mark.parametrize("background", [0, 90])
def test_zeros_and_tissue_at_the_border_are_no_noise(cases, tmp_path, rewrite, background):
    for case in cases:
        rewrite(case["image"], lambda voxels: np.where(in_noise(voxels) == 2, background, voxels))
    assert findings(cases, tmp_path, skull_stripped=True) == {}


def test_a_few_noisy_cases_are_not_the_data_set(cases, tmp_path, rewrite):
    for case in cases[:3]:
        rewrite(case["image"], in_noise)
    assert findings(cases, tmp_path, skull_stripped=True) == {}
