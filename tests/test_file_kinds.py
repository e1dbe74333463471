# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from segan_monai.file_kinds import NIFTI, VOLUMES, file_id, has_ending, is_dicom, is_gzip, is_picture


@pytest.mark.parametrize("name", ["a.nii", "a.NII", "a.Nii.gz", "a.NII.GZ"])
def test_endings_in_any_case(name):
    assert has_ending(name, NIFTI)
    assert has_ending(Path("x") / name, VOLUMES)
    assert file_id(Path("x.nii") / name) == "a"


def test_other_endings():
    assert has_ending("a.MHA", VOLUMES)
    assert not has_ending("a.MHA", NIFTI)
    assert not has_ending("nii", NIFTI)
    assert not has_ending("a.nii.txt", VOLUMES)
    assert is_picture("a.PNG")
    assert is_picture(Path("a.JPeG"))
    assert not is_picture("png")
    assert not is_picture(["a.png"])
    assert file_id("b.c.JPG") == "b.c"


def test_content_decides_and_not_the_name(tmp_path):
    file = tmp_path / "a.nii"
    file.write_bytes(b"\x1f\x8b\x08rest")
    assert is_gzip(file)
    assert not is_dicom(file)
    file.write_bytes(b"\0" * 128 + b"DICM")
    assert is_dicom(file)
    assert not is_gzip(file)
    assert not is_dicom(tmp_path / "missing")
    assert not is_dicom(tmp_path)
