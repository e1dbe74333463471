# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import nibabel
import numpy as np
import pytest

from segan_monai.data import find_cases, mrbrains_cases
from segan_monai.errors import DataError
from segan_monai.transforms import LoadCased, RelabelCased, StripByLabeld
from tests.data.challenges import write_mrbrains


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
    from tests.data.challenges import write_iseg

    write_mrbrains(tmp_path / "MRBrainS" / "TrainingData")
    write_iseg(tmp_path / "iSEG")
    with caplog.at_level("INFO"):
        cases = find_cases(tmp_path, require_labels=True)
    assert len(cases) == 4
    assert "(iSEG and MRBrainS): 4 cases, 4 labelled, 2 MRBrainS, 2 iSEG" in caplog.text
