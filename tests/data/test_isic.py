# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from segan_monai.data.cases import find_cases
from segan_monai.data.isic import isic_cases
from segan_monai.data.split import split_cases
from segan_monai.errors import DataError

SECTIONS = {"Training": 5, "Validation": 2, "Test_v2": 3}


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture
def official(tmp_path):
    """The challenge's folders, with the superpixels and tables that lie among the photographs."""
    number = 0
    for section, count in SECTIONS.items():
        names = [f"ISIC_{number + index:07}" for index in range(count)]
        number += count
        images = tmp_path / f"ISIC-2017_{section}_Data"
        touch(images, *(f"{name}.jpg" for name in names), *(f"{name}_superpixels.png" for name in names))
        touch(images, f"ISIC-2017_{section}_Data_metadata.csv", "._ISIC_0000000.jpg")
        touch(tmp_path / f"ISIC-2017_{section}_Part1_GroundTruth", *(f"{name}_segmentation.png" for name in names))
        touch(tmp_path / f"ISIC-2017_{section}_Part2_GroundTruth", *(f"{name}_features.json" for name in names))
    return tmp_path


def test_official_folders(official):
    cases = isic_cases(official)
    assert [case["section"] for case in cases] == ["training"] * 5 + ["validation"] * 2 + ["test"] * 3
    assert cases[5] == {
        "case": "ISIC_0000005",
        "subject": "ISIC_0000005",
        "image": str(official / "ISIC-2017_Validation_Data/ISIC_0000005.jpg"),
        "label": str(official / "ISIC-2017_Validation_Part1_GroundTruth/ISIC_0000005_segmentation.png"),
        "section": "validation",
    }


def test_official_split_or_folds_of_the_training_folder(official):
    cases = find_cases(official, require_labels=True)
    split = split_cases(cases)
    assert [len(split[part]) for part in ("training", "validation")] == [5, 2]
    again = split_cases(cases, held_out=2, use_sections=False)
    assert [len(again[part]) for part in ("training", "validation")] == [3, 2]
    assert all(case["section"] == "training" for part in again.values() for case in part)


def test_a_section_without_masks_is_for_inference(official):
    masks = official / "ISIC-2017_Test_v2_Part1_GroundTruth"
    for file in masks.iterdir():
        file.unlink()
    masks.rmdir()
    assert [case["case"] for case in isic_cases(official) if "label" not in case] == [
        "ISIC_0000007",
        "ISIC_0000008",
        "ISIC_0000009",
    ]


def test_one_of_the_official_folders_as_a_plain_one(official):
    cases = find_cases(official / "ISIC-2017_Validation_Data")
    assert [case["case"] for case in cases] == ["ISIC_0000005", "ISIC_0000006"]
    assert "label" not in cases[0]


@pytest.mark.parametrize("mask", ["a_segmentation.png", "a_mask.png", "a_seg.PNG", "a.png"])
def test_images_and_masks(tmp_path, mask):
    touch(tmp_path / "images", "a.JPG", "b_mask.png")
    touch(tmp_path / "masks", mask, "b_mask.png")
    cases = isic_cases(tmp_path)
    assert [(case["case"], case["label"]) for case in cases] == [
        ("a", str(tmp_path / "masks" / mask)),
        ("b_mask", str(tmp_path / "masks/b_mask.png")),
    ]
    assert "section" not in cases[0]


def test_photograph_without_mask(official, caplog):
    (official / "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000003_segmentation.png").unlink()
    (case,) = [case for case in find_cases(official) if "label" not in case and case["section"] == "training"]
    assert case["case"] == "ISIC_0000003"
    assert "ISIC_0000003" not in [case["case"] for case in find_cases(official, require_labels=True)]
    assert "cases without label map: ISIC_0000003" in caplog.text


def test_what_is_not_read_is_named(tmp_path, caplog):
    touch(tmp_path / "images", "a.jpg", "b.jpg", "c.tif")
    touch(tmp_path / "images" / "more", "d.jpg")
    touch(tmp_path / "masks", "a_segmentation.png", "b_segmentation.jpg")
    labelled = [case["case"] for case in find_cases(tmp_path) if "label" in case]
    assert labelled == ["a"]
    assert (
        f"{tmp_path / 'images'}: omitted c.tif, more/. Cases are files in the folder itself that end in .jpg,"
        in caplog.text
    )
    assert f"{tmp_path / 'masks'}: omitted b_segmentation.jpg. Masks end in .png or .bmp" in caplog.text


def test_mask_without_photograph(official):
    (official / "ISIC-2017_Training_Data/ISIC_0000003.jpg").unlink()
    with pytest.raises(DataError, match=r"ISIC_0000003_segmentation\.png has no photograph: 1 of 5 masks .*: add the"):
        find_cases(official)


def test_two_masks(tmp_path):
    touch(tmp_path / "images", "a.jpg")
    touch(tmp_path / "masks", "a.png", "a_mask.png")
    with pytest.raises(DataError, match=r"a has two masks, .*a\.png and .*a_mask\.png\. Expected one: keep one"):
        isic_cases(tmp_path)


def test_two_photographs_of_one_name(tmp_path):
    touch(tmp_path, "a.jpg", "a.png")
    with pytest.raises(DataError, match=r"two cases are named a: .*a\.jpg and .*a\.png"):
        find_cases(tmp_path)


def test_volumes_come_first_and_bundles_of_modalities_take_no_photographs(tmp_path):
    touch(tmp_path, "a.jpg")
    assert [case["case"] for case in find_cases(tmp_path)] == ["a"]
    with pytest.raises(DataError, match=r"found 1 other entries, such as a\.jpg"):
        find_cases(tmp_path, modalities=("t1c",))
    touch(tmp_path, "b.nii.gz")
    assert [case["case"] for case in find_cases(tmp_path)] == ["b"]


@pytest.mark.real_data
def test_real_photographs(data_dir):
    cases = find_cases(data_dir / "isic2017", require_labels=True)
    assert len(cases) == 6
    assert cases[0]["case"] == "ISIC_0012388"
