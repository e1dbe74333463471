# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import nibabel
import numpy as np
import pytest

from segan_monai.data import find_cases, mrbrains_cases
from segan_monai.errors import DataError
from segan_monai.transforms import LoadCased, RelabelCased, StripByLabeld

SPACING = (0.958, 0.958, 3.0)


def write_mrbrains(folder, subjects=("1", "2"), labels=("LabelsForTraining", "LabelsForTesting")):
    """Folders as the challenge has them: a head with skull, all scans but the 1 mm one on the labels' grid."""
    generator = np.random.default_rng(1)
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1])
    for subject in subjects:
        eight = np.zeros((24, 28, 12), np.uint8)
        eight[4:20, 4:24, 2:10] = generator.integers(1, 9, (16, 20, 8))
        merged = np.array([0, 2, 2, 3, 3, 1, 1, 0, 0], np.uint8)[eight]
        t1 = (generator.integers(20, 40, eight.shape) + 100 * merged).astype(np.int16)
        (folder / subject).mkdir(parents=True)
        volumes = {"T1": t1, "T1_IR": t1, "T2_FLAIR": t1, "LabelsForTraining": eight, "LabelsForTesting": merged}
        for name, volume in volumes.items():
            if not name.startswith("Labels") or name in labels:
                nibabel.save(nibabel.Nifti1Image(volume, affine), folder / subject / f"{name}.nii")
        fine = nibabel.Nifti1Image(t1.repeat(3, axis=2), np.diag([1.0, 1, 1, 1]))
        nibabel.save(fine, folder / subject / "T1_1mm.nii")
    return folder


def test_layout(tmp_path):
    write_mrbrains(tmp_path / "TrainingData")
    write_mrbrains(tmp_path / "TestData", ("1",), labels=())
    cases = find_cases(tmp_path)
    assert [case["case"] for case in cases] == ["MRBrainS_1", "MRBrainS_2", "MRBrainS_TestData_1"]
    assert cases[0]["image"] == str(tmp_path / "TrainingData/1/T1.nii")
    assert cases[0]["label"] == str(tmp_path / "TrainingData/1/LabelsForTraining.nii")
    assert {case["domain"] for case in cases} == {"MRBrainS"}
    assert "label" not in cases[2]
    assert "skull_strip" not in cases[2]


@pytest.mark.parametrize("kind", ["LabelsForTraining", "LabelsForTesting"])
def test_eight_labels_become_three_and_the_skull_goes(tmp_path, kind):
    write_mrbrains(tmp_path, ("1",), labels=(kind,))
    case = RelabelCased("label")(LoadCased(num_channels=1)(mrbrains_cases(tmp_path)[0]))
    expected = np.asanyarray(nibabel.load(tmp_path / "1" / f"{kind}.nii").dataobj)
    if kind == "LabelsForTraining":
        tissues = {1: "gm", 2: "gm", 3: "wm", 4: "wm", 5: "csf", 6: "csf"}
        numbers = {"csf": 1, "gm": 2, "wm": 3}
        expected = np.vectorize(lambda value: numbers.get(tissues.get(value), 0))(expected)
    assert np.array_equal(case["label"][0].numpy(), expected)
    stripped = StripByLabeld("image")(case)["image"][0].numpy()
    assert (stripped[expected == 0] == 0).all()
    assert np.array_equal(stripped[expected > 0], case["image"][0].numpy()[expected > 0])
    assert (case["image"] > 0).all(), "the case given is not changed"


def test_only_cases_that_ask_are_stripped(tmp_path):
    write_mrbrains(tmp_path, ("1",))
    case = LoadCased(num_channels=1)(mrbrains_cases(tmp_path)[0])
    del case["skull_strip"]
    assert StripByLabeld("image")(case)["image"] is case["image"]


def test_a_t1_alone_is_no_case_of_the_challenge(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), tmp_path / "T1.nii")
    assert [case["case"] for case in find_cases(tmp_path)] == ["T1"]
    with pytest.raises(DataError, match="no MRBrainS case in"):
        mrbrains_cases(tmp_path)


def test_both_challenges_in_one_folder(tmp_path, caplog):
    from tests.data.test_iseg import write_iseg

    write_mrbrains(tmp_path / "MRBrainS" / "TrainingData")
    write_iseg(tmp_path / "iSEG")
    with caplog.at_level("INFO"):
        cases = find_cases(tmp_path, require_labels=True)
    assert len(cases) == 4
    assert "(iSEG and MRBrainS): 4 cases, 4 labelled, 2 MRBrainS, 2 iSEG" in caplog.text
