# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from segan_monai.check.learnable import check_learnable
from segan_monai.check.report import Report

REGIONS = {"WT": [1, 2, 4], "ET": [4]}


def findings(labels, part="training", regions=REGIONS, cases=None, relabelled=False):
    """Levels and messages for label maps that hold the given values."""
    cases = cases or [{"case": f"c{index}"} for index in range(len(labels))]
    contents = {
        case["case"]: {"labels": values and [(value, 7) for value in values]}
        for case, values in zip(cases, labels, strict=True)
    }
    report = Report()
    check_learnable({part: cases}, contents, regions, relabelled, report)
    return [(finding.level, finding.rule, finding.message) for finding in report.findings]


@pytest.mark.parametrize(
    ("part", "level"), [("training", "error"), ("validation", "warning"), ("evaluated", "warning")]
)
def test_all_label_maps_are_empty(part, level):
    ((found, rule, message),) = findings([[0], [0.0]], part)
    assert (found, rule) == (level, "labels")
    assert message.startswith(f"all 2 label maps of the {part} cases are empty: every voxel is background")


def test_one_voxel_in_one_of_them_is_enough():
    assert findings([[0], [0, 4], [0]]) == []
    assert findings([None, None]) == [], "cases without label maps"


def test_a_region_that_no_case_holds():
    ((level, _, message),) = findings([[0, 1], [0, 2]])
    assert level == "warning"
    assert "no label map of the 2 training cases contains region ET (label values 4); found 1, 2." in message
    assert findings([[0, 1]], regions=None) == []


def test_values_that_the_run_gives_new_meanings():
    cases = [{"case": "c0", "tissue_values": {"10": 1, "250": 4}}, {"case": "c1", "tissue_values": {7: 0}}]
    assert findings([[0, 10, 250], [0]], cases=cases, relabelled=True) == []
    ((level, _, _),) = findings([[0], [0, 7]], cases=cases, relabelled=True)
    assert level == "error", "7 becomes background"
