# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import pytest

from segan_monai.errors import DataError
from segan_monai.new_bundle import describe_data
from tests.new_bundle.data import MRI, write_raw


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw") / "Dataset001_Organ", cases=2)


def described(folder, **changes):
    (folder / "dataset.json").write_text(json.dumps({**MRI, **changes}), encoding="utf-8")
    return describe_data(folder)


def test_names_licence_and_cases(folder):
    found = described(folder, licence="CC BY 4.0", reference="A hospital")
    assert (found.title, found.licence, found.reference) == ("Dataset001_Organ", "CC BY 4.0", "A hospital")
    assert (found.channels, found.regions) == (["T1"], {"organ": [1]})
    assert [case["case"] for case in found.cases] == ["c0", "c1"]


@pytest.mark.parametrize(
    ("labels", "regions"),
    [
        ({"0": "background", "1": "a", "2": "b"}, {"a": [1], "b": [2]}),
        ({"background": 0, "a": 1, "b": "2"}, {"a": [1], "b": [2]}),
        ({"background": [0], "whole": [1, 2, 3], "core": [3, 2]}, {"whole": [1, 2, 3], "core": [2, 3]}),
        ({"background": 0, "a#b": 1, "$c": 2}, {"a_b": [1], "c": [2]}),
    ],
)
def test_labels_both_ways_round_and_regions(folder, labels, regions):
    assert described(folder, labels=labels).regions == regions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "a": 1, "ignore": 0}}, r"label 'ignore' is 0. Expected one positive value"),
        ({"labels": {"background": 0, "a": 1, "ignore": [2, 3]}}, r"label 'ignore' is \[2, 3\]. Expected one"),
        ({"labels": {"background": 0}}, r"names only the background"),
        ({"labels": {"background": 0, "a": 1.5}}, r"label 'a' is \[1.5\]. Expected"),
        ({"labels": ["a"]}, r"'labels' is \['a'\]. Expected"),
        (
            {"labels": {"background": 0, "a b": 1, "a/b": 2, "a%b": 3}},
            r"label 'a%b' has the values \[3\]. Expected names that differ",
        ),
        ({"channel_names": {"a": "T1"}}, r"the channel names are"),
        ({"channel_names": {"0": "$T1"}}, r"a channel is named '\$T1'"),
    ],
)
def test_names_that_cannot_be_used(folder, changes, message):
    with pytest.raises(DataError, match=message):
        described(folder, **changes)


def test_the_ignore_label_of_nnunet(folder):
    found = described(folder, labels={"background": 0, "a": 1, "b": 2, "ignore": 3})
    assert (found.regions, found.ignore_label) == ({"a": [1], "b": [2]}, 3)
    assert described(folder, labels={"background": 0, "a": 1}).ignore_label is None


def test_folders_that_are_no_data_set(folder, tmp_path):
    with pytest.raises(DataError, match=r"has neither dataset.json nor imagesTr"):
        describe_data(tmp_path)
    described(folder)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "labelsTr")
    with pytest.raises(DataError, match=r"has no folder labelsTr. Expected a label map labelsTr/<case>.nii.gz"):
        describe_data(copy)
    shutil.copytree(folder / "labelsTr", copy / "labelsTr")
    (copy / "labelsTr" / "c1.nii.gz").unlink()
    with pytest.raises(DataError, match=r"has 1 labelled subject for training. Expected at least 2"):
        describe_data(copy)
