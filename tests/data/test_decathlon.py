# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from segan_monai.data.decathlon import decathlon_cases, file_id
from segan_monai.errors import ConfigError, DataError

TASK01 = {
    "name": "BRATS",
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    "training": [
        {"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"},
        {"image": "./imagesTr/._BRATS_001.nii.gz", "label": "./labelsTr/._BRATS_001.nii.gz"},
    ],
    "test": ["./imagesTs/BRATS_485.nii.gz"],
}


def write(folder: Path, datalist: object, name: str = "dataset.json", files: tuple[str, ...] = ()) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(datalist if isinstance(datalist, str) else json.dumps(datalist), encoding="utf-8")
    return path


@pytest.fixture
def task01(tmp_path):
    write(tmp_path, TASK01, files=("imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz"))
    return tmp_path


def test_task01(task01):
    cases = decathlon_cases(task01, modalities=("t1c", "t2", "flair"))
    assert cases == [
        {
            "case": "BRATS_001",
            "subject": "BRATS_001",
            "image": str(task01 / "imagesTr/BRATS_001.nii.gz"),
            "label": str(task01 / "labelsTr/BRATS_001.nii.gz"),
            "channels": [2, 3, 0],
            "convention": "msd_brain_tumour",
            "section": "training",
        },
        {
            "case": "BRATS_485",
            "subject": "BRATS_485",
            "image": str(task01 / "imagesTs/BRATS_485.nii.gz"),
            "channels": [2, 3, 0],
            "convention": "msd_brain_tumour",
            "section": "test",
        },
    ]
    assert decathlon_cases(task01 / "dataset.json", modalities=("t1c", "t2", "flair")) == cases


def test_all_channels_without_modalities(task01):
    assert all("channels" not in case for case in decathlon_cases(task01))


def test_unknown_modality(task01):
    with pytest.raises(ConfigError, match=r"dataset\.json has no modality t1ce2; it names FLAIR, T1w, t1gd, T2w"):
        decathlon_cases(task01, modalities=("flair", "t1ce2"))


def test_own_datalist(tmp_path):
    files = ("a_t1c.nii.gz", "a_t2.nii.gz", "a_seg.nii.gz", "b/t1c.nii", "b/t2.nii", "c.nii.gz")
    datalist = {
        "training": [
            {
                "image": ["a_t1c.nii.gz", "a_t2.nii.gz"],
                "label": "a_seg.nii.gz",
                "subject": "s1",
                "grade": "HGG",
                "fold": 2,
            }
        ],
        "validation": [{"image": ["b/t1c.nii", "b/t2.nii"], "label": None, "convention": "brats2021", "domain": "x"}],
        "testing": [{"image": "c.nii.gz", "case": "third"}],
    }
    file = write(tmp_path, datalist, "lists/mine.json")
    write(tmp_path, "", "unused", files=files)
    first, second, third = decathlon_cases(file, base_dir=tmp_path)
    assert first["image"] == [str(tmp_path / "a_t1c.nii.gz"), str(tmp_path / "a_t2.nii.gz")]
    assert (first["case"], first["subject"], first["grade"], first["fold"]) == ("a", "s1", "HGG", 2)
    assert (second["case"], second["section"], second["domain"]) == ("b", "validation", "x")
    assert second["convention"] == "brats2021"
    assert "label" not in second
    assert (third["case"], third["section"], third["image"]) == ("third", "test", str(tmp_path / "c.nii.gz"))


def test_folds_are_kept_and_are_numbers(tmp_path):
    entries = [{"image": f"{name}.nii", "fold": fold} for name, fold in (("a", 0), ("b", 3))]
    file = write(tmp_path, {"training": entries}, files=("a.nii", "b.nii"))
    assert [case["fold"] for case in decathlon_cases(file)] == [0, 3]
    for wrong in ("1", -1, True, 0.5):
        write(tmp_path, {"training": [{**entries[0], "fold": wrong}]})
        with pytest.raises(DataError, match=f"entry 0 of 'training' has fold {wrong}. Expected a whole number"):
            decathlon_cases(file)


def test_numbered_modalities_share_the_name_of_the_case(tmp_path):
    files = ("BRATS_001_0000.nii.gz", "BRATS_001_0001.nii.gz")
    file = write(tmp_path, {"training": [{"image": files}]}, files=files)
    assert decathlon_cases(file)[0]["case"] == "BRATS_001"


def test_modalities_select_from_a_list_of_images(tmp_path):
    files = ("p_a.nii", "p_b.nii")
    datalist = {"modality": {"0": "T2", "1": "FLAIR"}, "training": [{"image": files}]}
    (case,) = decathlon_cases(write(tmp_path, datalist, files=files), modalities=("flair",))
    assert case["image"] == [str(tmp_path / "p_b.nii")]
    assert "channels" not in case


def test_list_of_another_length_than_modalities(tmp_path):
    datalist = {"modality": {"0": "T2", "1": "FLAIR"}, "training": [{"image": ["p_b.nii"]}]}
    with pytest.raises(DataError, match="entry 0 of 'training' has 1 images where 'modality' names 2"):
        decathlon_cases(write(tmp_path, datalist, files=("p_b.nii",)), modalities=("flair",))


def test_other_tasks_have_no_convention(tmp_path):
    datalist = {"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "training": [{"image": "a.nii"}]}
    assert "convention" not in decathlon_cases(write(tmp_path, datalist, files=("a.nii",)))[0]


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"no datalist .*dataset\.json.*--datalist"):
        decathlon_cases(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{training: []}", "is not valid JSON"),
        ("[]", "holds a list"),
        ('{"name": "x"}', "has no entries.*found the keys name"),
        ('{"training": [{"label": "a.nii"}]}', "entry 0 of 'training' has no image"),
        (
            '{"training": [{"image": "a.nii"}, {"image": "b.nii"}]}',
            r"2 files that do not exist, the first .*a\.nii\. Paths",
        ),
    ],
)
def test_bad_datalist(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        decathlon_cases(write(tmp_path, content))


@pytest.mark.parametrize("name", ["sub.01.nii.gz", "x/sub.01.mha", "sub.01.nii", "sub.01.nrrd"])
def test_file_id_keeps_other_dots(name):
    assert file_id(name) == "sub.01"


@pytest.mark.real_data
def test_hippocampus(data_dir):
    cases = decathlon_cases(data_dir / "msd_hippocampus")
    assert len(cases) == 199
    assert cases[0]["case"] == "hippocampus_001"
    assert {case["domain"] for case in cases} == {"uint8", "float_low", "float_high"}


@pytest.mark.parametrize("path", ["../other/a.nii.gz", "/etc/passwd", "~/a.nii.gz", "images/../../a.nii.gz"])
@pytest.mark.parametrize("key", ["image", "label"])
def test_paths_may_not_leave_the_data_set(tmp_path, path, key):
    entry = {"image": "a.nii.gz", "label": "a.nii.gz"} | {key: path}
    file = write(tmp_path / "data", {"training": [entry]}, files=("a.nii.gz", "../other/a.nii.gz", "../a.nii.gz"))
    with pytest.raises(DataError) as caught:
        decathlon_cases(file)
    assert str(caught.value).startswith(f"{file} names {path}, which lies outside {tmp_path / 'data'}. ")
    assert "allow more by setting --dataset_dir to a folder that holds all of the files, such as /" in str(caught.value)


def test_dataset_dir_allows_what_it_holds(tmp_path):
    image, label = tmp_path / "images" / "a.nii.gz", tmp_path / "labels" / "a.nii.gz"
    datalist = {"training": [{"image": str(image), "label": "../labels/a.nii.gz"}]}
    file = write(tmp_path / "lists", datalist, "mine.json", ("../images/a.nii.gz", "../labels/a.nii.gz"))
    with pytest.raises(DataError, match=f"such as {tmp_path}"):
        decathlon_cases(file)
    (case,) = decathlon_cases(file, base_dir=tmp_path)
    assert (case["image"], case["label"]) == (str(image), str(label))


def test_links_in_the_data_set_are_followed(tmp_path):
    write(tmp_path / "elsewhere", {}, files=("a.nii.gz",))
    file = write(tmp_path / "data", {"training": ["a.nii.gz"]})
    (tmp_path / "data" / "a.nii.gz").symlink_to(tmp_path / "elsewhere" / "a.nii.gz")
    assert decathlon_cases(file)[0]["image"] == str(tmp_path / "data" / "a.nii.gz")
