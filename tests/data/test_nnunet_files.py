# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from segan_monai.data import decathlon_cases, find_cases, nnunet_cases, split_cases, write_nnunet, write_nnunet_split
from segan_monai.errors import ConfigError, DataError

LABELS = {"anterior": 1, "posterior": 2}


@pytest.fixture
def hippocampus(tmp_path):
    folder = tmp_path / "Task04"
    entries = []
    for number in range(10):
        entry = {"image": f"imagesTr/h_{number}.nii.gz", "label": f"labelsTr/h_{number}.nii.gz"}
        for file in entry.values():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
        entries.append(entry)
    (folder / "dataset.json").write_text(json.dumps({"modality": {"0": "MRI"}, "training": entries}), encoding="utf-8")
    return decathlon_cases(folder)


def test_what_nnunet_reads(hippocampus, tmp_path):
    file = write_nnunet(hippocampus[:2], tmp_path / "raw" / "Dataset004_Hippocampus", ["MRI"], LABELS)
    folder = tmp_path / "Task04"
    assert file == tmp_path / "raw" / "Dataset004_Hippocampus" / "dataset.json"
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "dataset": {
            f"h_{number}": {
                "images": [str(folder / f"imagesTr/h_{number}.nii.gz")],
                "label": str(folder / f"labelsTr/h_{number}.nii.gz"),
            }
            for number in (0, 1)
        },
    }


def test_round_trip_beside_the_images(hippocampus, tmp_path):
    write_nnunet(hippocampus, tmp_path, ["MRI"], LABELS)
    fields = ("case", "subject", "image", "label")
    assert [[case[field] for field in fields] for case in nnunet_cases(tmp_path)] == [
        [case[field] for field in fields] for case in hippocampus
    ]
    assert len(find_cases(tmp_path)) == 10


def test_a_file_a_channel_in_their_order(tmp_path):
    case = {"case": "p", "image": [str(tmp_path / "b.nii"), str(tmp_path / "a.nii")], "label": str(tmp_path / "l.nii")}
    content = json.loads(write_nnunet([case], tmp_path, ["T2", "ADC"], {"PZ": 1}).read_text(encoding="utf-8"))
    assert content["dataset"]["p"]["images"] == case["image"]
    assert (content["channel_names"], content["file_ending"]) == ({"0": "T2", "1": "ADC"}, ".nii")


def test_the_split_is_fold_0(hippocampus, tmp_path):
    split = split_cases(hippocampus, folds=5, file=tmp_path / "split.json")
    (fold,) = json.loads(write_nnunet_split(split, tmp_path / "new" / "splits_final.json").read_text(encoding="utf-8"))
    ours = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    assert fold == {"train": ours["training"], "val": ours["validation"]}
    assert (len(fold["train"]), len(fold["val"])) == (8, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, r"case a has no label map. Pass labelled cases only"),
        ({"image": ["a_0.nii.gz", "a_1.nii.gz"]}, r"case a has 2 files for the 1 channels MRI. .*one file per channel"),
        ({"channels": [0, 1]}, r"case a has 1 files for the 1 channels MRI. .*split the volume"),
        ({"label": "a_seg.nii"}, r"the files end in .nii, .nii.gz. nnU-Net expects one ending"),
    ],
)
def test_what_nnunet_does_not_take(change, message, tmp_path):
    case = {"case": "a", "image": "a.nii.gz", "label": "a_seg.nii.gz"} | change
    case = {key: value for key, value in case.items() if value is not None}
    with pytest.raises(DataError, match=message):
        write_nnunet([case], tmp_path, ["MRI"], LABELS)


def test_values_of_labels_are_consecutive(tmp_path):
    with pytest.raises(ConfigError, match=r"labels have the values \[1, 4\]. nnU-Net expects 1 to 2"):
        write_nnunet([], tmp_path, ["MRI"], {"oedema": 1, "enhancing": 4})
