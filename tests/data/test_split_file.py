# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import json
import logging

import pytest

from segan_monai.data import held_out, read_split, split_cases
from segan_monai.errors import DataError

NAMES = ("a", "b", "c", "d")


def write_case(folder, name, content):
    file = folder / f"{name}.nii.gz"
    file.write_bytes(gzip.compress(content.encode(), mtime=len(content) + ord(name[0])))
    return {"case": name, "subject": name, "image": str(file), "label": str(file)}


@pytest.fixture
def split_file(tmp_path):
    """Of a network that learnt from a, b and d, and was validated on c."""
    cases = [write_case(tmp_path, name, f"voxels of {name}") for name in NAMES]
    cases[2]["section"] = "validation"
    split_cases(cases, file=tmp_path / "split.json")
    return tmp_path / "split.json"


def names_of(cases):
    return [case["case"] for case in cases]


def test_training_cases_under_new_names_are_not_held_out(split_file, tmp_path, caplog):
    renamed = {"x": "a", "y": "c", "z": "d", "new": "another"}
    cases = [write_case(tmp_path, name, f"voxels of {content}") for name, content in renamed.items()]
    with caplog.at_level(logging.INFO):
        assert names_of(held_out(cases, split_file)) == ["y", "new"]
    assert "case x is training case a under another name" in caplog.text
    assert "case z is training case d under another name" in caplog.text
    assert names_of(held_out(cases, split_file, "training")) == ["x", "z"]
    assert names_of(held_out(cases, split_file, "validation")) == ["y"]


def test_only_renamed_training_cases_leave_nothing_to_judge(split_file, tmp_path):
    cases = [write_case(tmp_path, f"x{name}", f"voxels of {name}") for name in "abd"]
    with pytest.raises(DataError, match="no case is left in subset 'held_out' of 3 cases"):
        held_out(cases, split_file)


def test_names_that_were_exchanged(split_file, tmp_path, caplog):
    """c has become a training case; a, by its name, could still be one with another header."""
    cases = [write_case(tmp_path, name, f"voxels of {of}") for name, of in (("a", "c"), ("c", "a"), ("b", "b"))]
    cases.append(write_case(tmp_path, "e", "voxels of e"))
    assert names_of(held_out(cases, split_file)) == ["e"]
    assert "case a has the name of a training case but another content, and counts as that case" in caplog.text
    assert "case b " not in caplog.text


def test_without_digests_names_decide(split_file, tmp_path):
    record = json.loads(split_file.read_text(encoding="utf-8"))
    assert record.pop("digests").keys() == set(NAMES)
    split_file.write_text(json.dumps(record), encoding="utf-8-sig")
    cases = [write_case(tmp_path, name, "voxels of a") for name in ("a", "x")]
    assert names_of(held_out(cases, split_file)) == ["x"]


def test_an_image_that_is_not_there_is_known_by_its_name(split_file, tmp_path):
    cases = [{"case": name, "image": str(tmp_path / "none.nii.gz")} for name in ("a", "c", "x")]
    assert names_of(held_out(cases, split_file)) == ["c", "x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[]", r"contains a list\. Expected a JSON object"),
        ("{}", "it has no 'training'; expected a list of names of cases"),
        ('{"training": [], "validation": [1]}', r"'validation' is \[1\]; expected a list of names of cases"),
        ('{"training": [], "validation": [], "unlabeled": 3}', "'unlabeled' is 3; expected a list of names of cases"),
        ('{"training": [], "validation": [], "digests": ["a"]}', r"'digests' is \['a'\]; expected names of cases"),
        ('{"training": [], "validation": [], "digests": {"a": 1}}', "'digests' is {'a': 1}; expected names of cases"),
        ('{"training": [], "validation": [], "counts": {"HGG": 3}}', "'counts' is {'HGG': 3}; expected a number of"),
        ('{"training": [], "validation": [], "subjects": {"a": 1}}', "'subjects' is {'a': 1}; expected names of cases"),
    ],
)
def test_damaged_split_file(tmp_path, content, message):
    (tmp_path / "split.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"split\.json .*{message}.* Write it again by training\.$"):
        read_split(tmp_path / "split.json")
    with pytest.raises(DataError, match=rf"split\.json .*{message}.* Delete its folder\.$"):
        read_split(tmp_path / "split.json", "Delete its folder.")


def test_the_subjects_of_cases_are_recorded_where_they_differ(tmp_path):
    cases = [{"case": f"{patient}-{number}", "subject": patient, "image": ""} for patient in "ab" for number in (1, 2)]
    cases += [
        {"case": "c", "subject": "c", "image": ""},
        {"case": "t-1", "subject": "t", "image": "", "section": "test"},
    ]
    split_cases(cases, folds=3, file=tmp_path / "split.json")
    assert read_split(tmp_path / "split.json")["subjects"] == {
        "a-1": "a",
        "a-2": "a",
        "b-1": "b",
        "b-2": "b",
        "t-1": "t",
    }
