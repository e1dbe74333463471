# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv

import pytest
from monai.data import DataLoader
from monai.transforms import Compose, Lambda, RandomizableTransform

from segan_monai.data import CaseCacheDataset, CaseDataset
from segan_monai.errors import DataError

CASES = [{"case": name, "value": value} for name, value in (("a", 1), ("b", 2), ("c", 3), ("d", 4))]


class Reader:
    """Cannot read the cases named."""

    def __init__(self, *bad, kind=DataError):
        self.bad = set(bad)
        self.kind = kind
        self.seen = []

    def __call__(self, case):
        self.seen.append(case["case"])
        if case["case"] in self.bad:
            raise self.kind(f"{case['case']}.nii.gz is truncated")
        return case


class Random(RandomizableTransform):
    """What is before it is cached."""

    def __call__(self, case):
        return case


def cached(reader, tmp_path, **settings):
    transform = Compose([Lambda(reader, track_meta=False), Random()])
    return CaseCacheDataset(CASES, transform, report=tmp_path / "skipped.csv", progress=False, **settings)


def report(tmp_path):
    with (tmp_path / "skipped.csv").open(encoding="utf-8") as stream:
        return [(row["case"], row["error"]) for row in csv.DictReader(stream)]


def test_a_bad_case_comes_as_its_name_and_what_is_wrong():
    batches = list(DataLoader(CaseDataset(CASES, Lambda(Reader("b"), track_meta=False)), batch_size=1))
    assert [batch["case"] for batch in batches] == [["a"], ["b"], ["c"], ["d"]]
    assert batches[1] == {"case": ["b"], "error": ["b.nii.gz is truncated"]}
    assert "error" not in batches[0]


@pytest.mark.parametrize("cache_rate", [0.0, 1.0])
def test_by_default_a_bad_case_is_an_error(tmp_path, cache_rate):
    with pytest.raises(Exception, match="applying transform") as caught:
        list(cached(Reader("b"), tmp_path, cache_rate=cache_rate))
    assert "b.nii.gz is truncated" in str(caught.value.__cause__)
    assert not (tmp_path / "skipped.csv").exists()


def test_cases_that_are_bad_from_the_start_are_left_out_and_listed(tmp_path, caplog):
    dataset = cached(Reader("b", "d"), tmp_path, skip_unreadable=True)
    assert [case["case"] for case in dataset] == ["a", "c"]
    assert report(tmp_path) == [("b", "b.nii.gz is truncated"), ("d", "d.nii.gz is truncated")]
    assert "case b is skipped: b.nii.gz is truncated" in caplog.text


def test_a_cached_part_and_a_part_that_is_read_each_time(tmp_path):
    dataset = cached(Reader("b", "d"), tmp_path, skip_unreadable=True, cache_rate=0.5)
    assert [case["case"] for case in dataset] == ["a", "c", "a"], "b left out, d replaced by the one after it"


def test_a_case_that_turns_bad_is_replaced_by_the_next_and_listed_once(tmp_path):
    reader = Reader()
    dataset = cached(reader, tmp_path, skip_unreadable=True, cache_rate=0.0)
    assert [case["case"] for case in dataset] == ["a", "b", "c", "d"]
    reader.bad = {"c", "d"}
    for _ in range(2):
        assert [case["case"] for case in dataset] == ["a", "b", "a", "a"]
    assert [case for case, _ in report(tmp_path)] == ["c", "d"]


@pytest.mark.parametrize("cache_rate", [0.0, 1.0])
def test_if_all_are_bad_nothing_can_be_trained(tmp_path, cache_rate):
    with pytest.raises(DataError, match=r"none of 4 cases can be read. Fix or replace the files. The first is "):
        cached(Reader("a", "b", "c", "d"), tmp_path, skip_unreadable=True, cache_rate=cache_rate)[0]


def test_an_error_that_is_not_of_the_data_is_never_skipped(tmp_path):
    with pytest.raises(RuntimeError):
        cached(Reader("b", kind=TypeError), tmp_path, skip_unreadable=True)
