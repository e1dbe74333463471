# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Folders of CT volumes and of CT slices."""

from __future__ import annotations

import logging

import pytest

from segan_monai.data import ct_cases, split_cases
from segan_monai.errors import ConfigError, DataError


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_slices_of_a_patient_are_one_subject(tmp_path):
    names = ["PANCREAS_0001-1106", "PANCREAS_0001-1124", "PANCREAS_0004-1096", "other"]
    touch(tmp_path / "images", *(f"{name}.jpg" for name in names), ".hidden.jpg", "notes.txt")
    touch(tmp_path / "masks", *(f"{name}.png" for name in names))
    cases = ct_cases(tmp_path, require_labels=True)
    assert [case["case"] for case in cases] == names
    assert [case["subject"] for case in cases] == ["PANCREAS_0001", "PANCREAS_0001", "PANCREAS_0004", "other"]
    assert cases[1]["label"] == str(tmp_path / "masks" / "PANCREAS_0001-1124.png")
    assert {case["subject"] for case in ct_cases(tmp_path, subject_pattern="([A-Za-z]+).*")} == {"PANCREAS", "other"}


def test_what_is_not_read_is_named(tmp_path, caplog):
    touch(tmp_path / "images", "a.png", "b.nii.gz", "c.tif")
    touch(tmp_path / "images" / "more", "d.png")
    assert [case["case"] for case in ct_cases(tmp_path)] == ["a", "b"]
    assert f"{tmp_path / 'images'}: omitted c.tif, more/. Cases are files in the folder itself that end" in caplog.text


def test_volumes_as_nih_names_them(tmp_path):
    touch(tmp_path / "images", "PANCREAS_0001.nii.gz", "PANCREAS_0002-1.nii.gz")
    touch(tmp_path / "labels", "label0001.nii.gz", "PANCREAS_0002-1.nii.gz")
    cases = ct_cases(tmp_path)
    assert [(case["case"], case["subject"]) for case in cases] == [
        ("PANCREAS_0001", "PANCREAS_0001"),
        ("PANCREAS_0002-1", "PANCREAS_0002-1"),  # the pattern is for pictures
    ]
    assert cases[0]["label"].endswith("label0001.nii.gz")


def test_images_alone_and_other_layouts(tmp_path):
    touch(tmp_path / "a" / "images", "x-1.png")
    assert [case.get("label") for case in ct_cases(tmp_path / "a")] == [None]
    with pytest.raises(DataError, match="needs masks"):
        ct_cases(tmp_path / "a", require_labels=True)
    touch(tmp_path / "b", "ct.nii.gz")
    assert [case["case"] for case in ct_cases(tmp_path / "b")] == ["ct"]
    touch(tmp_path / "c", "p-1.jpg", "p-2.jpg")
    assert {case["subject"] for case in ct_cases(tmp_path / "c")} == {"p"}


def test_slices_without_a_mask(tmp_path, caplog):
    touch(tmp_path / "images", "p-1.jpg", "p-2.jpg", "q-1.jpg", "r-1.jpg")
    touch(tmp_path / "masks", "p-1.jpg", "q-1.jpg")
    with caplog.at_level(logging.INFO):
        cases = ct_cases(tmp_path, require_labels=True, keep_unlabeled=True)
    assert [(case["case"], "label" in case) for case in cases] == [
        ("p-1", True),
        ("p-2", False),
        ("q-1", True),
        ("r-1", False),
    ]
    assert "4 cases, 2 labelled, 2 unlabelled" in caplog.text
    assert [case["case"] for case in ct_cases(tmp_path, require_labels=True)] == ["p-1", "q-1"]
    assert "omitted 2 cases without label map: p-2, r-1" in caplog.text
    split = split_cases(cases, folds=2)
    held_out = split["validation"][0]["subject"]
    assert {case["subject"] for case in split["unlabeled"]} == {"p", "r"} - {held_out}


def test_labels_of_whole_patients_are_hidden(tmp_path):
    names = [f"{patient}-{number}" for patient in "abcd" for number in (1, 2, 3)]
    touch(tmp_path / "images", *(f"{name}.png" for name in names))
    touch(tmp_path / "masks", *(f"{name}.png" for name in names))
    cases = ct_cases(tmp_path)
    split = split_cases(cases, folds=4, labeled_cases=1, labeled_by="subject", file=tmp_path / "split.json")
    kept, hidden = ({case["subject"] for case in split[part]} for part in ("training", "unlabeled"))
    assert (len(split["training"]), len(split["unlabeled"])) == (3, 6)
    assert (len(kept), len(hidden), kept & hidden) == (1, 2, set())
    with pytest.raises(ConfigError, match="labeled_cases is 4, but 3 training subjects have a label"):
        split_cases(cases, folds=4, labeled_cases=4, labeled_by="subject")
    with pytest.raises(ConfigError, match=r"labeled_by subject, but .* pass --labeled_by subject"):
        split_cases(cases, folds=4, labeled_cases=1, resume=True, file=tmp_path / "split.json")


def test_bad_folders_are_named(tmp_path):
    touch(tmp_path / "images", "a.jpg", "b.jpg")
    touch(tmp_path / "masks", "b.jpg", "c.jpg")
    with pytest.raises(DataError, match=r"c\.jpg has no image: 1 of 2 masks"):
        ct_cases(tmp_path)
    touch(tmp_path / "images", "a.png")
    with pytest.raises(DataError, match="have the same name"):
        ct_cases(tmp_path)
    with pytest.raises(ConfigError, match="subject_pattern"):
        ct_cases(tmp_path, subject_pattern="(")
    with pytest.raises(ConfigError, match="no group"):
        ct_cases(tmp_path, subject_pattern="[0-9]+")
    touch(tmp_path / "empty" / "images")
    with pytest.raises(DataError, match="no images in"):
        ct_cases(tmp_path / "empty")


@pytest.mark.real_data
def test_the_slices_of_nih_are_split_by_patient(data_dir):
    cases = ct_cases(data_dir / "nih_pancreas_ct_2d", require_labels=True)
    assert len(cases) == 191
    assert len({case["subject"] for case in cases}) == 46
    split = split_cases(cases, folds=4)
    patients = [{case["subject"] for case in part} for part in split.values()]
    assert not patients[0] & patients[1]


@pytest.mark.parametrize("sub", ["", "images", "images/s1", "s1"])
def test_a_folder_of_dicom_is_named(sub, tmp_path):
    (tmp_path / sub).mkdir(parents=True, exist_ok=True)
    (tmp_path / sub / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(DataError, match=r"IM0001 is DICOM\. To segment a study, use segan-monai dicom BUNDLE"):
        ct_cases(tmp_path)
