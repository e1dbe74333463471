# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging

import pytest

from segan_monai.data.cases import find_cases
from segan_monai.data.ct import ct_cases
from segan_monai.errors import DataError


def brats_case(folder, case, labelled=True):
    (folder / case).mkdir(parents=True)
    for kind in ("t1ce", "t2", "flair", *(["seg"] if labelled else [])):
        (folder / case / f"{case}_{kind}.nii.gz").touch()


def test_brats_only_with_modalities(tmp_path):
    brats_case(tmp_path / "HGG", "p1")
    assert [case["case"] for case in find_cases(tmp_path, modalities=("t2",))] == ["p1"]
    flat = tmp_path / "HGG/p1"
    assert [case["case"] for case in find_cases(flat)] == ["p1_flair", "p1_t1ce", "p1_t2"]


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


def test_other_images_of_a_plain_folder_are_named(tmp_path, caplog):
    for name in ("a.nii.gz", "b.mhd", "b.raw", "c.nhdr", "sub/d.nii.gz", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [case["case"] for case in find_cases(tmp_path)] == ["a"]
    assert (
        f"{tmp_path}: omitted b.mhd, c.nhdr, sub/. Cases are files in the folder itself that end in .nii, "
        in caplog.text
    )


def test_log_says_what_was_found(tmp_path, caplog):
    brats_case(tmp_path / "HGG", "p1")
    brats_case(tmp_path / "HGG", "p2")
    brats_case(tmp_path / "LGG", "p3", labelled=False)
    with caplog.at_level(logging.INFO):
        cases = find_cases(tmp_path, modalities=("t2",), require_labels=True)
    assert [case["case"] for case in cases] == ["p1", "p2"]
    assert "(BraTS folders): 3 cases, 2 labelled, 1 unlabelled, 2 HGG, 1 LGG" in caplog.messages[0]
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


@pytest.mark.parametrize(("name", "kind"), [("scan.NII.gz", "file"), ("a/b.jpg", "file"), ("a", "file or folder")])
def test_what_is_missing_is_named_as_it_was_given(name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remedy = "Set --dataset_dir to the folder of the images (-i of segan-monai predict: or to an image)."
    for find in (find_cases, ct_cases):
        for given, where in ((name, f" ({tmp_path / name})"), (tmp_path / name, "")):
            with pytest.raises(DataError) as caught:
                find(given)
            assert str(caught.value) == f"dataset_dir {given}{where}: there is no such {kind}. {remedy}"


def test_folder_without_images(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"found 1 other entries, such as a\.txt\. Expected images .*dataset\.json"):
        find_cases(tmp_path)


@pytest.mark.real_data
def test_real_layouts(data_dir):
    assert len(find_cases(data_dir / "open_ms", modalities=("t1c", "t2", "flair"), require_labels=True)) == 2
    assert len(find_cases(data_dir / "msd_hippocampus", require_labels=True)) == 199


def test_a_brats_case_without_a_modality_is_kept_with_the_reason_where_one_case_may_fail(tmp_path):
    for case in ("p1", "p2", "p3"):
        brats_case(tmp_path, case)
    (tmp_path / "p2" / "p2_t1ce.nii.gz").unlink()
    modalities = ("t1c", "t2")
    with pytest.raises(DataError, match=r"BraTS case p2 in .* has no file for t1c"):
        find_cases(tmp_path, modalities=modalities)
    cases = find_cases(tmp_path, modalities=modalities, require_labels=True, keep_incomplete=True)
    assert [case["case"] for case in cases] == ["p1", "p2", "p3"]
    assert [case["case"] for case in cases if "unusable" in case] == ["p2"]
    assert cases[1]["unusable"].startswith(f"BraTS case p2 in {tmp_path}/p2 has no file for t1c; it has ")
    assert cases[1]["image"] == [str(tmp_path / "p2" / "p2_t2.nii.gz")]


def test_if_no_case_can_be_used_the_first_fault_is_raised(tmp_path):
    for case in ("p1", "p2"):
        brats_case(tmp_path, case)
        (tmp_path / case / f"{case}_t1ce.nii.gz").unlink()
    with pytest.raises(DataError, match=r"BraTS case p1 in .* has no file for t1c"):
        find_cases(tmp_path, modalities=("t1c", "t2"), keep_incomplete=True)


def test_a_datalist_that_names_a_file_too_many_costs_that_case(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.nii.gz").touch()
    datalist = tmp_path / "mine.json"
    datalist.write_text(json.dumps({"training": ["a.nii.gz", "b.nii.gz", "c.nii.gz"]}), encoding="utf-8")
    with pytest.raises(DataError, match=r"names 1 files that do not exist, the first of them .*c.nii.gz"):
        find_cases(tmp_path, datalist)
    cases = find_cases(tmp_path, datalist, keep_incomplete=True)
    assert [case.get("unusable") for case in cases[:2]] == [None, None]
    assert cases[2]["unusable"].startswith(f"{tmp_path}/c.nii.gz: there is no such file.")
    (tmp_path / "a.nii.gz").unlink()
    (tmp_path / "b.nii.gz").unlink()
    with pytest.raises(DataError, match="names 3 files that do not exist"):
        find_cases(tmp_path, datalist, keep_incomplete=True)


def test_one_file_is_a_data_set_of_one_case(tmp_path):
    for name in ("scan.nii.gz", "scan_seg.nii.gz", "list.json"):
        (tmp_path / name).touch()
    file = tmp_path / "scan.nii.gz"
    assert find_cases(file) == [{"case": "scan", "subject": "scan", "image": str(file)}]
    assert ct_cases(file) == find_cases(file, modalities=["t1c", "t2"]) == find_cases(file)
    assert find_cases(tmp_path / "scan_seg.nii.gz")[0]["case"] == "scan_seg", "whoever names it means it"
    with pytest.raises(DataError, match=r"list.json: it is no image. .* A list of cases is passed as --datalist "):
        find_cases(tmp_path / "list.json")
