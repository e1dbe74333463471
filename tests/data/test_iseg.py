# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import nibabel
import numpy as np
import pytest

from segan_monai.data import find_cases, iseg_cases
from segan_monai.errors import DataError
from segan_monai.transforms import LoadCased, RelabelCased
from tests.data.challenges import write_analyze, write_iseg


def test_layout(tmp_path):
    write_iseg(tmp_path / "iSeg-2017-Training")
    write_analyze(tmp_path / "iSeg-2017-Testing" / "subject-11-T1.img", np.zeros((4, 4, 4), np.int16))
    cases = find_cases(tmp_path)
    assert [case["case"] for case in cases] == ["iSEG_subject-1", "iSEG_subject-11", "iSEG_subject-2"]
    first, test, _ = cases
    assert first["image"] == str(tmp_path / "iSeg-2017-Training/subject-1-T1.hdr")
    assert first["label"].endswith("subject-1-label.hdr")
    assert {case["domain"] for case in cases} == {"iSEG"}
    assert "label" not in test
    assert len(find_cases(tmp_path, require_labels=True)) == 2


def test_files_are_read_and_labels_become_tissues(tmp_path):
    write_iseg(tmp_path)
    case = RelabelCased("label")(LoadCased(num_channels=1)(iseg_cases(tmp_path)[0]))
    assert case["image"].shape == case["label"].shape == (1, 20, 24, 16)
    raw = np.asanyarray(nibabel.load(tmp_path / "subject-1-label.hdr").dataobj)[..., 0]
    for value, tissue in ((0, 0), (10, 1), (150, 2), (250, 3)):
        assert np.array_equal(case["label"][0].numpy() == tissue, raw == value)
    assert np.allclose(np.abs(np.linalg.det(case["image"].affine[:3, :3])), 1)


def test_unknown_label_value(tmp_path):
    write_iseg(tmp_path)
    label = np.zeros((20, 24, 16), np.uint8)
    label[3, 3, 3:6] = 200
    write_analyze(tmp_path / "subject-1-label.img", label)
    case = LoadCased(num_channels=1)(iseg_cases(tmp_path)[0])
    with pytest.raises(
        DataError,
        match=r"case iSEG_subject-1: .*subject-1-label.hdr holds label values 200 \(3 voxels\); expected 0, 10",
    ):
        RelabelCased("label")(case)


def test_without_t1_and_without_voxels(tmp_path):
    write_analyze(tmp_path / "a" / "subject-3-T2.img", np.zeros((4, 4, 4), np.int16))
    with pytest.raises(DataError, match=r"iSEG subject-3 in .* has no T1, only subject-3-T2.hdr"):
        iseg_cases(tmp_path)
    write_analyze(tmp_path / "a" / "subject-3-T1.img", np.zeros((4, 4, 4), np.int16))
    (tmp_path / "a" / "subject-3-T1.img").unlink()
    with pytest.raises(DataError, match=r"subject-3-T1.hdr has no subject-3-T1.img beside it"):
        iseg_cases(tmp_path)


def test_twice_and_none(tmp_path):
    with pytest.raises(DataError, match="no iSEG case in"):
        iseg_cases(tmp_path)
    write_iseg(tmp_path / "a", 1)
    write_iseg(tmp_path / "b", 1)
    with pytest.raises(DataError, match=r"iSEG subject-1 has two files for .*Keep one"):
        iseg_cases(tmp_path)
