# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from segan_monai.data.cases import find_cases
from segan_monai.data.plain import plain_cases
from segan_monai.errors import DataError


def names_of(cases):
    return [case["case"] for case in cases]


@pytest.mark.parametrize("ending", ["_seg", "-seg", "_SEG", "_label", "_labels", "_mask", "_probabilities"])
def test_label_maps_beside_images_are_no_images(ending, tmp_path, caplog):
    for name in ("a.nii.gz", "b.nii.gz", f"a{ending}.nii.gz", f"b{ending}.nrrd"):
        (tmp_path / name).touch()
    assert names_of(find_cases(tmp_path)) == ["a", "b"]
    assert f"{tmp_path}: omitted 2 label maps: a{ending}.nii.gz, b{ending}.nrrd" in caplog.text


def test_pictures_beside_volumes_are_named(tmp_path, caplog):
    for name in ("a.nii.gz", "a_overlay.png", "slice.jpg", "scan.tif"):
        (tmp_path / name).touch()
    assert names_of(find_cases(tmp_path)) == ["a"]
    assert f"{tmp_path}: omitted scan.tif, slice.jpg. Cases are files" in caplog.text
    (tmp_path / "patient").mkdir()
    (tmp_path / "patient" / "IM0001.dcm").touch()
    find_cases(tmp_path)
    assert f"{tmp_path}: omitted patient/, scan.tif, slice.jpg. Cases are files" in caplog.text
    assert "overlay" not in caplog.text


def test_words_that_only_begin_like_these_are_names_of_images(tmp_path):
    for name in ("a_segovia.nii.gz", "seg.nii.gz", "masked.nii.gz", "_seg_a.nii.gz"):
        (tmp_path / name).touch()
    assert len(find_cases(tmp_path)) == 4


def test_a_folder_of_label_maps_is_refused(tmp_path, write_volume):
    (tmp_path / "a_seg.nii.gz").touch()
    with pytest.raises(DataError, match=r"holds 1 label maps, such as a_seg.nii.gz, and no images. Set --dataset_dir"):
        find_cases(tmp_path)
    label = np.zeros((4, 5, 6), np.float32)
    label[1] = 3
    write_volume(tmp_path / "labelsTr" / "a.nii.gz", label)
    with pytest.raises(DataError, match=r"labelsTr holds 1 label maps, such as a.nii.gz, and no images"):
        find_cases(tmp_path / "labelsTr")


def test_what_is_called_labels_may_hold_images(tmp_path, write_volume):
    image = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(np.int16)
    write_volume(tmp_path / "labels" / "a.nii.gz", image)
    assert names_of(find_cases(tmp_path / "labels")) == ["a"]
    label = np.ones((4, 5, 6), np.uint8)
    write_volume(tmp_path / "images" / "a.nii.gz", label)
    assert names_of(find_cases(tmp_path / "images")) == ["a"], "a binary image in another folder"


def test_a_case_without_a_channel(tmp_path):
    for name in ("a_0000", "a_0001", "b_0001", "b_0000", "c_0000"):
        (tmp_path / f"{name}.nii.gz").touch()
    assert names_of(plain_cases(tmp_path, 2)) == ["a_0000", "a_0001", "b_0000", "b_0001", "c_0000"]
    a, b, c = plain_cases(tmp_path, 2, keep_incomplete=True)
    assert [case["case"] for case in (a, b, c)] == ["a", "b", "c"]
    assert a["image"] == [str(tmp_path / "a_0000.nii.gz"), str(tmp_path / "a_0001.nii.gz")]
    assert "unusable" not in a
    assert "unusable" not in b
    assert c["unusable"] == (
        f"case c in {tmp_path} has the channels 0000; expected 0000, 0001. Complete it, or move it out of the folder."
    )
