# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Odd names of files: every layout finds all of its cases, under names that everything can carry."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from segan_monai.case_names import case_name, is_case_name, path_for_simpleitk
from segan_monai.check.headers import read_header
from segan_monai.data import ct_cases, find_cases
from segan_monai.errors import DataError
from segan_monai.metrics import evaluate_folders
from segan_monai.volume_files import read_volume

ODD = {
    b"caf\xe9": "caf%E9",
    b"tab\tin": "tab%09in",
    b"new\nline": "new%0Aline",
    b"back\\slash": "back%5Cslash",
    b"-dash": "-dash",
    b"trail ": "trail ",
    b"\"quotes'": "\"quotes'",
    "emoji \N{BRAIN}".encode(): "emoji \N{BRAIN}",
    b"100%": "100%",
}
NAMES = sorted(ODD.values())


def touch(folder, ending):
    """A file with each odd name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ODD:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name + ending.encode())).touch()


def names(cases):
    assert all(Path(path).exists() for case in cases for path in np.atleast_1d(case["image"]))
    assert all(Path(case["label"]).exists() for case in cases if "label" in case)
    return sorted(case["case"] for case in cases)


@pytest.mark.parametrize(
    ("name", "expected"), [(os.fsdecode(raw), safe) for raw, safe in ODD.items()], ids=range(len(ODD))
)
def test_names_stay_or_are_escaped(name, expected):
    assert case_name(name) == expected
    assert case_name(expected) == expected
    assert expected.isprintable()


def test_long_names_are_cut_and_stay_apart():
    first, second = case_name("ü" * 120 + "1"), case_name("ü" * 120 + "2")
    assert first != second
    assert first.startswith("ü" * 90 + "~")
    assert len(first.encode()) == 180 + 1 + 12
    assert case_name("a" * 200) == "a" * 200


def test_a_surrogate_that_stands_for_no_byte():
    assert case_name("\ud800") == "%ED%A0%80"


@pytest.mark.parametrize("name", ["", "a/b", "a\tb", "a" * 201, None, 7])
def test_what_is_no_name(name):
    assert not is_case_name(name)


def test_plain_folder_and_photographs(tmp_path):
    touch(tmp_path / "plain", ".nii.gz")
    touch(tmp_path / "photographs", ".jpg")
    for folder in ("plain", "photographs"):
        cases = find_cases(tmp_path / folder)
        assert names(cases) == NAMES
        assert sorted(case["subject"] for case in cases) == NAMES


def test_photographs_with_masks(tmp_path):
    touch(tmp_path / "images", ".jpg")
    touch(tmp_path / "masks", "_segmentation.png")
    cases = find_cases(tmp_path, require_labels=True)
    assert names(cases) == NAMES
    assert all(Path(case["image"]).stem + "_segmentation" == Path(case["label"]).stem for case in cases)


def test_ct(tmp_path):
    touch(tmp_path / "images", ".nii.gz")
    touch(tmp_path / "labels", ".nii.gz")
    cases = ct_cases(tmp_path, require_labels=True)
    assert names(cases) == NAMES
    assert all(Path(case["image"]).name == Path(case["label"]).name for case in cases)


@pytest.mark.parametrize("form", ["_{}.nii.gz", "-{}.nii.gz"])
def test_brats(tmp_path, form):
    kinds = ("t1ce", "t2", "seg") if form.startswith("_") else ("t1c", "t2w", "seg")
    for kind in kinds:
        touch(tmp_path, form.format(kind))
    cases = find_cases(tmp_path, modalities=("t1c", "t2"), require_labels=True)
    assert names(cases) == NAMES


def test_nnunet(tmp_path):
    for channel in ("_0000", "_0001"):
        touch(tmp_path / "imagesTr", f"{channel}.nii.gz")
    touch(tmp_path / "labelsTr", ".nii.gz")
    assert names(find_cases(tmp_path, require_labels=True)) == NAMES


def test_decathlon(tmp_path):
    touch(tmp_path / "imagesTr", ".nii.gz")
    images = [f"imagesTr/{os.fsdecode(name)}.nii.gz" for name in ODD]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": images}), encoding="utf-8")
    assert names(find_cases(tmp_path)) == NAMES


def test_evaluation_matches_a_result_with_its_label_map(tmp_path, write_volume):
    raw = os.fsdecode(b"a\tb\xff" + b"c" * 230)
    for folder, name in (("predictions", f"{case_name(raw)}_seg"), ("references", raw)):
        write_volume(tmp_path / folder / f"{name}.nii.gz", np.ones((4, 4, 4), np.uint8))
    table = evaluate_folders(tmp_path / "predictions", tmp_path / "references", tmp_path / "out", workers=1)
    assert table["case"].tolist() == [case_name(raw)]
    assert case_name(raw) in (tmp_path / "out" / "metrics.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("read", [read_volume, read_header, path_for_simpleitk])
def test_simpleitk_would_end_the_process(tmp_path, write_volume, read):
    file = tmp_path / os.fsdecode(b"a\xff.mha")
    write_volume(tmp_path / "a.mha", np.ones((4, 4, 4), np.uint8)).rename(file)
    with pytest.raises(DataError, match=r"the path contains non-UTF-8 bytes, .* Rename the file"):
        read(file)
