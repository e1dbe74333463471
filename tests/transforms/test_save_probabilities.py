# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Probability maps, read back by other programs."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImaged

from segan_monai.errors import ConfigError
from segan_monai.transforms import SaveProbabilitiesd


def case(affine, maps):
    meta = {"filename_or_obj": "x/patient.7.nii.gz", "original_affine": affine, "spatial_shape": maps.shape[1:]}
    return {"probabilities": MetaTensor(maps, affine=torch.from_numpy(affine), meta=meta)}


@pytest.fixture
def maps():
    return torch.rand(2, 6, 5, 4, generator=torch.Generator().manual_seed(0)).index_fill(3, torch.tensor([0]), 1.0)


def test_a_file_per_region_that_every_program_reads(tmp_path, oblique, maps):
    maps[:, :, :, 1] = 0
    save = SaveProbabilitiesd("probabilities", tmp_path, ["grey matter", "lesion"], "regions")
    saved = save({**case(oblique, maps), "saved_files": ["other"]})
    names = ["patient.7_probability_grey_matter.nii.gz", "patient.7_probability_lesion.nii.gz"]
    assert saved["saved_files"] == ["other", *(str(tmp_path / name) for name in names)]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    for name, expected in zip(names, maps.numpy(), strict=True):
        image = nibabel.load(tmp_path / name)
        assert image.get_data_dtype() == np.uint16
        np.testing.assert_allclose(image.affine, oblique, atol=1e-5)
        of_simpleitk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / name))).transpose(2, 1, 0)
        for values in (image.get_fdata(), of_simpleitk):
            assert values.shape == expected.shape
            assert np.abs(values - expected).max() < 1e-5
            assert values.max() == pytest.approx(1, abs=1e-6)
            assert values[..., 1].max() == 0


def test_a_position_of_the_source_is_kept(tmp_path, oblique, maps, write_volume):
    source = tmp_path / "source.nii.gz"
    write_volume(source, np.zeros(maps.shape[1:], np.float32), oblique)
    data = case(oblique, maps)
    data["probabilities"].meta["source_files"] = str(source)
    SaveProbabilitiesd("probabilities", tmp_path, ["a", "b"], "regions")(data)
    found = nibabel.load(tmp_path / "patient.7_probability_b.nii.gz")
    assert np.abs(found.get_fdata() - maps[1].numpy()).max() < 1e-5
    assert np.array_equal(found.header["quatern_b"], nibabel.load(source).header["quatern_b"])


def test_one_file_of_all_regions(tmp_path, oblique, maps):
    (file,) = SaveProbabilitiesd("probabilities", tmp_path, ["a", "b"])(case(oblique, maps))["saved_files"]
    image = nibabel.load(file)
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(np.asanyarray(image.dataobj), maps.movedim(0, -1).numpy())


def test_photographs(tmp_path):
    SaveProbabilitiesd("probabilities", tmp_path, ["lesion"], "regions")(case(np.eye(4), torch.full((1, 6, 5), 0.25)))
    assert nibabel.load(tmp_path / "patient.7_probability_lesion.nii.gz").get_fdata().max() == pytest.approx(
        0.25, abs=1e-5
    )


def test_what_cannot_be_named_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="save_probabilities is 'float16'; expected true, false or 'regions'"):
        SaveProbabilitiesd("p", tmp_path, ["a"], "float16")
    with pytest.raises(ConfigError, match=r"regions \['a b', 'a_b'\] have the same file names"):
        SaveProbabilitiesd("p", tmp_path, ["a b", "a_b"], "regions")


def test_servers_that_take_out_what_saves_know_it():
    assert issubclass(SaveProbabilitiesd, SaveImaged)
