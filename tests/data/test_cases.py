# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging

import pytest

from segan_monai.data.cases import find_cases
from segan_monai.errors import DataError


def brats_case(folder, case, labelled=True):
    (folder / case).mkdir(parents=True)
    for kind in ("t1ce", "t2", "flair", *(["seg"] if labelled else [])):
        (folder / case / f"{case}_{kind}.nii.gz").touch()


def test_brats_only_with_modalities(tmp_path):
    brats_case(tmp_path / "HGG", "p1")
    assert [case["case"] for case in find_cases(tmp_path, modalities=("t2",))] == ["p1"]
    flat = tmp_path / "HGG/p1"
    assert [case["case"] for case in find_cases(flat)] == ["p1_flair", "p1_seg", "p1_t1ce", "p1_t2"]


def test_dataset_json_comes_first(tmp_path):
    brats_case(tmp_path, "p1")
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [{"image": "p1/p1_t2.nii.gz"}]}), encoding="utf-8")
    assert [case["case"] for case in find_cases(tmp_path, modalities=("t2",))] == ["p1_t2"]


def test_datalist_overrides_and_is_relative_to_dataset_dir(tmp_path):
    brats_case(tmp_path / "data", "p1")
    datalist = tmp_path / "mine.json"
    datalist.write_text(json.dumps({"training": [{"image": "p1/p1_t2.nii.gz", "case": "mine"}]}), encoding="utf-8")
    (case,) = find_cases(tmp_path / "data", datalist=datalist, modalities=("t2",))
    assert (case["case"], case["image"]) == ("mine", str(tmp_path / "data/p1/p1_t2.nii.gz"))


def test_plain_folder(tmp_path):
    for name in ("b.mha", "a.nii.gz", "c.nrrd", "d.nii", "._a.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    cases = find_cases(tmp_path)
    assert [case["case"] for case in cases] == ["a", "b", "c", "d"]
    assert cases[0] == {"case": "a", "subject": "a", "image": str(tmp_path / "a.nii.gz")}


def test_log_says_what_was_found(tmp_path, caplog):
    brats_case(tmp_path / "HGG", "p1")
    brats_case(tmp_path / "HGG", "p2")
    brats_case(tmp_path / "LGG", "p3", labelled=False)
    with caplog.at_level(logging.INFO):
        cases = find_cases(tmp_path, modalities=("t2",), require_labels=True)
    assert [case["case"] for case in cases] == ["p1", "p2"]
    assert "(BraTS folders): 3 cases, 2 labelled, 2 HGG, 1 LGG" in caplog.messages[0]
    assert caplog.messages[1] == "omitted 1 cases without label map: p3"


def test_labels_required_and_none_there(tmp_path):
    (tmp_path / "a.nii").touch()
    with pytest.raises(DataError, match=r"none of the 1 cases .*plain folder of images.*has a label map.*--datalist"):
        find_cases(tmp_path, require_labels=True)


def test_duplicate_names(tmp_path):
    brats_case(tmp_path / "copy", "p1")
    brats_case(tmp_path, "p1")
    with pytest.raises(DataError, match=r"two cases are named p1: .*copy/p1.* Rename or move one"):
        find_cases(tmp_path, modalities=("t2",))


def test_name_that_is_no_file_name(tmp_path):
    (tmp_path / "a.nii").touch()
    (tmp_path / "dataset.json").write_text(
        json.dumps({"training": [{"image": "a.nii", "case": "x/y"}]}), encoding="utf-8"
    )
    with pytest.raises(DataError, match="'x/y' cannot be a file name"):
        find_cases(tmp_path)


def test_nothing_given():
    with pytest.raises(DataError, match="set --dataset_dir"):
        find_cases("")


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        find_cases(tmp_path / "nowhere", modalities=("t2",))


def test_folder_without_images(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"found 1 other entries, such as a\.txt\. Expected images .*dataset\.json"):
        find_cases(tmp_path)


@pytest.mark.real_data
def test_real_layouts(data_dir):
    assert len(find_cases(data_dir / "open_ms", modalities=("t1c", "t2", "flair"), require_labels=True)) == 2
    assert len(find_cases(data_dir / "msd_hippocampus", require_labels=True)) == 199
