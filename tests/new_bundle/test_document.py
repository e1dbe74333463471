# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

from segan_monai.new_bundle import choose
from segan_monai.new_bundle.document import fingerprint_lines, format_choices
from tests.new_bundle.fingerprints import HIPPOCAMPUS


def test_a_region_that_no_case_holds_is_a_warning():
    rare = replace(HIPPOCAMPUS, cases_with={"anterior": 40, "posterior": 0})
    assert fingerprint_lines(rare)[-1] == "WARNING: no case contains posterior; it cannot be learned"
    assert "WARNING" not in "".join(fingerprint_lines(HIPPOCAMPUS))


def test_spread_is_median_and_percentiles():
    wide = replace(HIPPOCAMPUS, shape=[[30, 36, 40], [47, 51, 53], [29, 35.5, 42]], domains={"a": 30, "b": 10})
    lines = fingerprint_lines(wide)
    assert lines[2].startswith("voxels: 36 (30 to 40) x 51 (47 to 53) x 35.5 (29 to 42); mm: 1 (1 to 1)")
    assert lines[3] == "labelled intensities: T1 100 ± 20 (0 to 200)"
    assert lines[4] == "domains: a 30, b 10"


def test_choices_stand_below_each_other():
    lines = format_choices(HIPPOCAMPUS, choose("segan", HIPPOCAMPUS)).splitlines()
    folds, neighbours = (next(line for line in lines if line.startswith(key)) for key in ("folds", "neighbours"))
    assert folds.split(maxsplit=2)[1:] == ["5", "40 subjects; about 8 cases are held out"]
    assert neighbours.split(maxsplit=2)[2] == "number of neighbouring slices on each side that the network sees"
    assert folds.index("40 subjects") == neighbours.index("number of")


def test_unlabelled_cases_are_counted():
    lines = fingerprint_lines(replace(HIPPOCAMPUS, unlabelled=57))
    assert " subjects, 57 unlabelled; channels: " in lines[0]
