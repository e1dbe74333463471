# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segan_monai.folds.calibration import describe_calibration, pooled_calibration
from segan_monai.quality.calibration import calibration_counts, calibration_of, write_counts
from tests.folds.results import one_region, write_fold

HALF = np.array([0.5] * 4)


def counts(truth):
    """Four voxels of probability 1/2."""
    return calibration_counts(HALF, np.array(truth, bool), np.ones(4, bool))


@pytest.fixture
def runs(tmp_path):
    """Of one configuration, all voxels of a fold are foreground and all of the other one background."""
    dice = [one_region(a=0.5, b=0.5), one_region(c=0.5, d=0.5)]
    found = [write_fold(tmp_path, "A", fold, of_fold) for fold, of_fold in enumerate(dice)]
    for run, truth in zip(found, ([1] * 4, [0] * 4), strict=True):
        write_counts(run.evaluation / "calibration.csv", {"tumour": counts(truth)})
    return found


def test_voxels_of_all_folds_count_together(runs):
    alone = [calibration_of({"tumour": counts(truth)})["tumour"] for truth in ([1] * 4, [0] * 4)]
    assert [of_fold["expected_calibration_error"] for of_fold in alone] == [0.5, 0.5]
    found, notes = pooled_calibration(runs)
    assert found["A"]["tumour"]["expected_calibration_error"] == 0
    assert notes == []
    table, sentence = describe_calibration(found)
    assert table.splitlines()[-1].startswith("| A | tumour | 0.0000 | ")
    assert "temperature above 1" in sentence


def test_ensembles_and_evaluations_without_counts_are_left_out(runs, tmp_path):
    both = replace(runs[0], row="A + B", members=tuple(runs), evaluation=tmp_path)
    other = write_fold(tmp_path, "B", 0, one_region(a=0.5))
    found, notes = pooled_calibration([*runs, other, both])
    assert list(found) == ["A"]
    assert notes == [
        f"B: no calibration over all folds, because {other.evaluation / 'calibration.csv'} does not exist."
    ]
    assert describe_calibration({}) == []
