# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Cases on which an ensemble may be evaluated."""

from __future__ import annotations

import json

import pytest

from segan_monai.data import held_out
from segan_monai.errors import ConfigError, DataError

CASES = [{"case": name, **({"section": "test"} if name in "ef" else {})} for name in "abcdef"]


@pytest.fixture
def splits(tmp_path):
    """Two members: both validate on d, each on a training case of the other; e is unlabelled data of the second."""
    records = [
        {"training": ["a", "b"], "validation": ["c", "d"]},
        {"training": ["b", "c"], "unlabeled": ["e"], "validation": ["a", "d"]},
    ]
    files = [tmp_path / f"{number}.json" for number in range(2)]
    for file, record in zip(files, records, strict=True):
        file.write_text(json.dumps(record), encoding="utf-8")
    return [str(file) for file in files]


@pytest.mark.parametrize(("subset", "names"), [("held_out", "df"), ("validation", "d"), ("training", "abce")])
def test_cases_of_a_subset(splits, subset, names):
    assert "".join(case["case"] for case in held_out(CASES, splits, subset)) == names


def test_sections_and_all_are_refused_if_a_member_has_seen_a_case(splits):
    with pytest.raises(ConfigError, match=r"--subset test: 1 of 2 cases were .* such as e \(.*1\.json\)"):
        held_out(CASES, splits, "test")
    with pytest.raises(ConfigError, match=r"--subset all: 4 of 6 .* such as a \(.*0\.json\). Omit --subset"):
        held_out(CASES, splits, "all")
    assert len(held_out([CASES[3], CASES[5]], splits, "all")) == 2


def test_folds_leave_no_case(splits):
    with pytest.raises(
        DataError, match=r"0\.json names 2 as trained on.*Folds of one data set hold out each case once"
    ):
        held_out(CASES[:3], splits)


def test_a_member_without_a_split_is_named(splits, tmp_path, caplog):
    assert "".join(case["case"] for case in held_out(CASES, [splits[0], str(tmp_path / "none.json")])) == "cdef"
    assert "none.json: its member may have been trained on any of the cases" in caplog.text
    with pytest.raises(DataError, match="no split file"):
        held_out(CASES, [splits[0], str(tmp_path / "none.json")], "validation")


def test_patches_have_no_common_split(splits):
    with pytest.raises(ConfigError, match="--split_by patch with 2 weights"):
        held_out(CASES, splits, split_by="patch")
