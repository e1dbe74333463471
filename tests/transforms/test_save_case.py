# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImaged
from PIL import Image

from segan_monai.errors import DataError, OutputError
from segan_monai.transforms import SaveCased


def case(affine, shape=(1, 6, 5, 4)):
    pixels = torch.arange(float(np.prod(shape))).reshape(shape) % 3
    meta = {"filename_or_obj": "somewhere/patient.7.nii.gz", "original_affine": affine, "spatial_shape": shape[1:]}
    return {"pred": MetaTensor(pixels, affine=torch.from_numpy(affine), meta=meta)}


def test_the_file_has_the_values_on_their_grid_and_is_listed(tmp_path, oblique):
    data = case(oblique)
    save = SaveCased("pred", output_dir=tmp_path / "new", output_postfix="seg", output_dtype=torch.uint8)
    saved = save({**data, "saved_files": ["other.json"]})
    file = tmp_path / "new" / "patient.7_seg.nii.gz"
    assert saved["saved_files"] == ["other.json", str(file)]
    assert list(file.parent.iterdir()) == [file]
    image = nibabel.load(file)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.affine, oblique, atol=1e-5)
    assert np.array_equal(np.asanyarray(image.dataobj), data["pred"][0].numpy())
    assert "saved_files" not in data


def test_pictures_too(tmp_path):
    data = case(np.eye(4), (1, 6, 5))
    save = SaveCased(
        "pred", output_dir=tmp_path, output_postfix="seg", output_ext=".png", output_dtype=torch.uint8, resample=False
    )
    (file,) = save(data)["saved_files"]
    with Image.open(file) as picture:
        assert picture.size == (6, 5)


def test_where_nothing_can_be_written_the_file_is_named(tmp_path, oblique):
    (tmp_path / ".patient.7_seg.part.nii.gz").mkdir()  # in the way; permissions do not stop an administrator
    save = SaveCased("pred", output_dir=tmp_path, output_postfix="seg", output_dtype=torch.uint8)
    with pytest.raises(OutputError, match=r"patient.7_seg.nii.gz cannot be written \(IsADirectoryError.*Free space"):
        save(case(oblique))


def test_a_result_that_a_format_cannot_hold_is_no_fault_of_the_disk(tmp_path):
    """Others go on, while a full disk ends the run."""
    save = SaveCased(
        "pred", output_dir=tmp_path, output_postfix="seg", output_ext=".png", output_dtype=torch.uint8, resample=False
    )
    with pytest.raises(DataError, match=r"7_seg\.png: the result of shape \(1, 6, 1\) cannot be written as \.png"):
        save(case(np.eye(4), (1, 6, 1)))


def test_servers_that_take_out_what_saves_know_it():
    assert issubclass(SaveCased, SaveImaged)
