# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Datalists that anyone may have written: well-formed cases, or an error with the name of the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from segan_monai.data import ct_cases, find_cases, held_out, read_split, split_cases
from segan_monai.errors import DataError, UserError

FUZZ = settings(max_examples=100, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PATHS = st.sampled_from(
    ["a.nii.gz", "b.nii.gz", "./a.nii.gz", "gone.nii.gz", "", ".", "~nobody/a.nii", "a\0b", "\ud800.nii", "x" * 5000]
)
ENTRY = st.fixed_dictionaries(
    {"image": PATHS | st.lists(PATHS, max_size=3) | ANYTHING},
    optional={
        "label": PATHS | ANYTHING,
        "case": st.sampled_from(["one", "two", 3, "../up", "a\\b", "", "x" * 300, "new\nline"]) | ANYTHING,
        "subject": st.sampled_from(["s1", "s2", 7]) | ANYTHING,
        "channels": st.lists(st.integers(-1, 3), max_size=3) | ANYTHING,
        "tissue_values": st.dictionaries(st.sampled_from(["1", "10", "x"]), st.integers(-1, 3)) | ANYTHING,
        **dict.fromkeys(("grade", "convention", "domain", "section", "skull_strip"), ANYTHING),
    },
)
ENTRIES = st.lists(ENTRY | PATHS, max_size=4) | ANYTHING
DATALIST = st.fixed_dictionaries(
    {"training": ENTRIES},
    optional={
        **dict.fromkeys(("validation", "test", "testing"), ENTRIES),
        "modality": st.sampled_from([{"0": "T2", "1": "FLAIR"}, {"x": "T2"}, ["T2", "FLAIR"], "T2", 5]) | ANYTHING,
        "labels": ANYTHING,
    },
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datalists")
    for name in ("a.nii.gz", "b.nii.gz"):
        (folder / name).touch()
    return folder


def check(file, modalities=None):
    for parse in (lambda: find_cases(None, file, modalities), lambda: ct_cases(None, file)):
        try:
            cases = parse()
        except UserError as error:
            assert file.name in str(error)
            continue
        assert cases
        assert len({case["case"] for case in cases}) == len(cases)
        for case in cases:
            images = [case["image"]] if isinstance(case["image"], str) else case["image"]
            paths = [*images, *([case["label"]] if "label" in case else [])]
            assert images
            assert all(path.startswith("/") for path in paths)
            assert case["section"] == "test" or all(Path(path).exists() for path in paths)
            texts = ("case", "subject", "section", "grade", "convention", "domain", "label")
            assert all(isinstance(case.get(key, ""), str) for key in texts)
            assert all(channel >= 0 for channel in case.get("channels", []))
            assert all(int(key) >= 0 and value >= 0 for key, value in case.get("tissue_values", {}).items())
            json.dumps(case)
        split = None
        try:
            split = split_cases(cases, folds=2, file=file.parent / "split.json")
        except UserError:
            continue  # too few, or a subject on both sides
        names = [case["case"] for part in ("training", "validation") for case in split[part]]
        assert len(set(names)) == len(names)


@FUZZ
@given(DATALIST, st.sampled_from([None, ["T2"], ["flair", "t2"]]))
def test_nearly_a_datalist(folder, datalist, modalities):
    file = folder / "mine.json"
    file.write_text(json.dumps(datalist), encoding="utf-8")
    check(file, modalities)


@FUZZ
@given(ANYTHING)
def test_any_json(folder, value):
    file = folder / "any.json"
    file.write_text(json.dumps(value), encoding="utf-8")
    check(file)


@FUZZ
@given(st.binary(max_size=60), st.integers(0, 200), st.binary(max_size=3))
def test_damaged_text(folder, noise, cut, inserted):
    whole = json.dumps({"training": [{"image": "a.nii.gz"}, {"image": "b.nii.gz"}], "modality": {"0": "T2"}}).encode()
    for content in (noise, whole[:cut], whole[:cut] + inserted + whole[cut:]):
        file = folder / "damaged.json"
        file.write_bytes(content)
        check(file)


def test_a_thousand_brackets(tmp_path):
    file = tmp_path / "deep.json"
    file.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(DataError, match=r"deep\.json is not valid JSON"):
        find_cases(None, file)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image": 5}, "entry 0 of 'training' has no image: .*5"),
        ({"image": {"0": "a.nii.gz"}}, "entry 0 of 'training' has no image"),
        ({"image": ["a.nii.gz", 1]}, "entry 0 of 'training' has no image"),
        ({"image": "a.nii.gz", "label": ["a.nii.gz"]}, r"has label \['a.nii.gz'\]. Expected a string"),
        ({"image": "a.nii.gz", "subject": ["s"]}, r"has subject \['s'\]. Expected a string"),
        ({"image": "a.nii.gz", "channels": "0"}, r"has channels 0. Expected \[0, 2\]"),
        ({"image": "a.nii.gz", "channels": [-1]}, r"has channels \[-1\]"),
        ({"image": "a.nii.gz", "tissue_values": {"grey": 1}}, "has tissue_values .*grey.*Expected"),
        ({"image": "a\0.nii.gz"}, "names 1 files that do not exist"),
        ({"image": "x" * 5000}, "cannot be a path"),
        ({"image": "a.nii.gz", "case": "new\nline"}, "cannot be a file name"),
        ({"image": "a.nii.gz", "case": "x" * 300}, "cannot be a file name"),
    ],
)
def test_wrong_entries(folder, entry, message):
    file = folder / "wrong.json"
    file.write_text(json.dumps({"training": [entry]}), encoding="utf-8")
    with pytest.raises(DataError, match=rf"wrong\.json.*{message}"):
        find_cases(None, file)


@pytest.mark.parametrize("modality", [5, {"x": "T2"}, {"0": "T2", "one": "FLAIR"}])
def test_wrong_modalities(folder, modality):
    file = folder / "wrong.json"
    file.write_text(json.dumps({"training": ["a.nii.gz"], "modality": modality}), encoding="utf-8")
    with pytest.raises(DataError, match=r"wrong\.json: 'modality' is .*Expected channel names by number"):
        find_cases(None, file, ["T2"])


def test_numbers_are_names_too(folder):
    file = folder / "numbers.json"
    file.write_text(
        json.dumps({"training": [{"image": "a.nii.gz", "case": 7, "subject": 12, "grade": None}]}), encoding="utf-8"
    )
    (case,) = find_cases(None, file)
    assert (case["case"], case["subject"]) == ("7", "12")
    assert "grade" not in case


@FUZZ
@given(ANYTHING)
def test_any_split_file(folder, value):
    file = folder / "any_split.json"
    file.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(DataError, match=r"any_split\.json"):
        read_split(file)


@pytest.mark.parametrize("names", [[["a"]], [1], "a", None])
def test_a_split_of_other_things_than_names(folder, names):
    file = folder / "split_of.json"
    file.write_text(json.dumps({"training": names, "validation": []}), encoding="utf-8")
    with pytest.raises(DataError, match=r"split_of\.json is not a split file"):
        held_out([{"case": "a"}], file)
