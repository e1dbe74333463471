# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from segan_monai.data import find_cases, nnunet_cases, split_cases, write_nnunet_split
from segan_monai.data.nnunet import by_channel
from segan_monai.errors import ConfigError, DataError

TWO = {"channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, "PZ": 1}, "file_ending": ".nii.gz"}


def raw(folder, files, content=None):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    if content is not None:
        (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture
def prostate(tmp_path):
    images = [
        f"images{part}/{case}_000{n}.nii.gz"
        for part, case in (("Tr", "p1"), ("Tr", "p2"), ("Ts", "p3"))
        for n in (0, 1)
    ]
    return raw(tmp_path, [*images, "labelsTr/p1.nii.gz", "labelsTr/p2.nii.gz"], TWO)


def test_a_file_a_channel(prostate, caplog):
    caplog.set_level("INFO")
    cases = find_cases(prostate)
    assert cases[0] == {
        "case": "p1",
        "subject": "p1",
        "image": [str(prostate / "imagesTr/p1_0000.nii.gz"), str(prostate / "imagesTr/p1_0001.nii.gz")],
        "label": str(prostate / "labelsTr/p1.nii.gz"),
        "section": "training",
    }
    assert [(case["case"], case["section"], "label" in case) for case in cases[1:]] == [
        ("p2", "training", True),
        ("p3", "test", False),
    ]
    assert "(nnU-Net raw format): 3 cases, 2 labelled" in caplog.text


def test_channels_by_name_in_any_order(prostate):
    (first, *_) = nnunet_cases(prostate, ["adc", "T2"])
    assert first["image"] == [str(prostate / f"imagesTr/p1_000{number}.nii.gz") for number in (1, 0)]
    with pytest.raises(ConfigError, match=r"has no modality flair; it names T2, ADC"):
        nnunet_cases(prostate, ["flair"])


def test_channels_of_one_name_are_all_taken(prostate):
    raw(prostate, [], {**TWO, "channel_names": {"0": "zscore", "1": "zscore"}})
    assert len(nnunet_cases(prostate, ["zscore", "zscore"])[0]["image"]) == 2


def test_the_first_version_names_files_without_channels(tmp_path):
    content = {
        "modality": {"0": "MRI"},
        "training": [{"image": "./imagesTr/h_1.nii.gz", "label": "./labelsTr/h_1.nii.gz"}],
    }
    raw(tmp_path, ["imagesTr/h_1_0000.nii.gz", "labelsTr/h_1.nii.gz"], content)
    (case,) = find_cases(tmp_path)
    assert (case["case"], case["image"]) == ("h_1", str(tmp_path / "imagesTr/h_1_0000.nii.gz"))


def test_the_decathlon_stays_the_decathlon(tmp_path):
    content = {"modality": {"0": "MRI"}, "training": [{"image": "imagesTr/h_1.nii.gz"}]}
    raw(tmp_path, ["imagesTr/h_1.nii.gz", "imagesTr/h_2.nii.gz"], content)
    assert [case["case"] for case in find_cases(tmp_path)] == ["h_1"], "what the file lists, not what lies there"


def test_without_dataset_json_and_without_numbers_of_channels(tmp_path):
    raw(tmp_path, ["imagesTr/a.mha", "imagesTr/b.mha", "labelsTr/a.mha"])
    cases = find_cases(tmp_path)
    assert [(case["case"], case.get("label")) for case in cases] == [
        ("a", str(tmp_path / "labelsTr/a.mha")),
        ("b", None),
    ]


def test_files_by_case_and_domains_by_case(tmp_path):
    files = {"a": {"images": ["x/1.nrrd"], "label": "y/1.nrrd"}, "b": {"images": ["x/2.nrrd"], "label": "y/2.nrrd"}}
    content = {"channel_names": {"0": "CT"}, "dataset": files, "domains": {"b": "site B"}}
    raw(tmp_path, ["x/1.nrrd", "x/2.nrrd", "y/1.nrrd", "y/2.nrrd"], content)
    first, second = find_cases(tmp_path)
    assert (first["case"], first["image"], first["label"]) == (
        "a",
        str(tmp_path / "x/1.nrrd"),
        str(tmp_path / "y/1.nrrd"),
    )
    assert (second["domain"], "domain" in first) == ("site B", False)


@pytest.mark.parametrize(
    ("missing", "more", "message"),
    [
        ("imagesTr/p2_0001.nii.gz", None, r"case p2 has the channels 0000; dataset.json names 2: 0000, 0001. Add the"),
        (None, "imagesTr/p4.nii.gz", r"p4.nii.gz: its name does not end in a channel number.*p4_0000.nii.gz"),
        (None, "labelsTr/p5.nii.gz", r"p5.nii.gz has no image: 1 of 3 label maps.*p5_0000.nii.gz"),
    ],
)
def test_what_is_missing_is_named(prostate, missing, more, message):
    if missing:
        (prostate / missing).unlink()
    raw(prostate, [more] if more else [])
    with pytest.raises(DataError, match=message):
        nnunet_cases(prostate)


def test_cases_with_other_channels_without_dataset_json(tmp_path):
    raw(tmp_path, ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTr/b_0000.nii.gz"])
    with pytest.raises(DataError, match=r"case b has the channels 0000; a has 2: 0000, 0001"):
        nnunet_cases(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**TWO, "file_ending": ".png"}, r"file_ending is '.png'. Expected that of a volume: .nii, .nii.gz"),
        ({**TWO, "file_ending": ".nrrd"}, r"imagesTr holds no volume that ends in .nrrd"),
        ({**TWO, "domains": ["a"]}, r"'domains' is \['a'\]. Expected one name per case"),
        ({**TWO, "dataset": {"a": {"images": []}}}, r"'dataset' has .* for a. Expected"),
    ],
)
def test_a_dataset_json_that_cannot_be_used(prostate, content, message):
    raw(prostate, [], content)
    with pytest.raises(DataError, match=message):
        nnunet_cases(prostate)


def test_a_plain_folder_is_grouped_where_the_channels_are_as_many_as_wanted(prostate):
    (case,) = find_cases(prostate / "imagesTs", modalities=["T2", "ADC"])
    assert (case["case"], len(case["image"])) == ("p3", 2)
    assert [case["case"] for case in find_cases(prostate / "imagesTs")] == ["p3_0000", "p3_0001"], "one is wanted"


def test_other_numbers_are_no_channels(tmp_path):
    names = ["PANCREAS_0001.nii.gz", "PANCREAS_0002.nii.gz"]
    assert by_channel(names) is None
    assert by_channel(["a_0000.nii", "a_0000.mha"]) is None
    assert by_channel(["a_0001.nii", "a_0000.nii"]) == {"a": {0: "a_0000.nii", 1: "a_0001.nii"}}
    raw(tmp_path, names)
    assert [case["case"] for case in find_cases(tmp_path)] == ["PANCREAS_0001", "PANCREAS_0002"]


def test_the_folds_of_splits_final(prostate):
    raw(prostate, [f"imagesTr/p0_000{n}.nii.gz" for n in (0, 1)])
    folds = [{"train": ["p0", "p2"], "val": ["p1"]}, {"train": ["p0", "p1"], "val": ["p2", "elsewhere"]}]
    (prostate / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    cases = find_cases(prostate)
    assert [(case["case"], case.get("fold")) for case in cases] == [("p0", -1), ("p1", 0), ("p2", 1), ("p3", None)]
    for number, fold in enumerate(folds):
        split = split_cases(cases, folds=5, fold=number)
        assert [case["case"] for case in split["training"]] == fold["train"][1:]
        assert [case["case"] for case in split["unlabeled"]] == ["p0"], "it has no label map"
        assert [case["case"] for case in split["validation"]] == fold["val"][:1]


def test_a_split_that_is_written_for_nnunet_is_read_as_it_was(prostate):
    first = split_cases(find_cases(prostate), folds=2, seed=1)
    write_nnunet_split(first, prostate / "splits_final.json")
    again = split_cases(find_cases(prostate), folds=2, fold=0)
    assert {part: [case["case"] for case in again[part]] for part in again} == {
        part: [case["case"] for case in first[part]] for part in first
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"splits_final.json is not valid JSON .*move it elsewhere to have folds drawn"),
        ('[{"train": ["p1"]}]', "is not a list of folds .*val"),
        ('[{"train": [], "val": ["p1"]}, {"train": [], "val": ["p1"]}]', "case p1 is in 'val' of folds 0, 1; expected"),
        ('[{"train": ["a"], "val": ["b"]}]', "names none of the 2 cases beside it, such as p1"),
    ],
)
def test_a_splits_final_that_cannot_be_used(prostate, content, message):
    (prostate / "splits_final.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        find_cases(prostate)
