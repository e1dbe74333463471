# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage

from segan_monai.transforms import InputGridWriter, LoadCased, SaveCased
from tests.bundles.volumes import Storage, make_grid, write
from tests.bundles.workflow import BUNDLES

GRID = make_grid((6, 5, 4), "PIR", (0.5, 1.0, 3.0), (0.1, 0.2, 0.3), (-30, 12, 40))
PLACE = ("qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "srow_y", "srow_z", "xyzt_units", "pixdim")


def save(tensor, folder, **settings):
    saver = SaveImage(
        output_dir=folder,
        output_postfix="seg",
        resample=True,
        separate_folder=False,
        writer=InputGridWriter,
        **settings,
    )
    saver(tensor)
    return folder / "case_seg.nii.gz"


def loaded(tmp_path, storage, shape=(6, 5, 4)):
    grid = make_grid(shape, "PIR", (0.5, 1.0, 3.0), (0.1, 0.2, 0.3), (-30, 12, 40))
    file = write(tmp_path / "input", np.arange(np.prod(shape)).reshape(shape) * 2 % 40, grid, storage)
    return file, LoadCased("image")({"case": "case", "image": str(file)})["image"]


@pytest.mark.parametrize("nifti2", [False, True])
@pytest.mark.parametrize("forms", ["sform", "qform", "disagreeing", "standard_space", "stale_size", "neither"])
def test_both_affines_are_the_inputs(tmp_path, forms, nifti2):
    file, image = loaded(tmp_path, Storage(forms=forms, codes=(4, 1), big_endian=True, nifti2=nifti2))
    result = nibabel.load(save(image, tmp_path, print_log=False))
    header, expected = result.header, nibabel.load(file).header
    for field in PLACE:
        np.testing.assert_allclose(header[field].flat[:4], expected[field].flat[:4], rtol=1e-6)
    np.testing.assert_array_equal(result.get_fdata(), image.numpy()[0])


def test_a_file_of_another_format_gives_its_one_affine(tmp_path):
    file, image = loaded(tmp_path, Storage(".mha"))
    result = nibabel.load(save(image, tmp_path))
    for form, code in (result.get_sform(coded=True), result.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(form, GRID.affine, atol=1e-5)
    np.testing.assert_allclose(
        SimpleITK.ReadImage(str(tmp_path / "case_seg.nii.gz")).GetOrigin(),
        SimpleITK.ReadImage(str(file)).GetOrigin(),
        atol=1e-5,
    )


@pytest.mark.parametrize("shape", [(6, 5, 1), (1, 5, 4), (6, 1, 1), (1, 1, 1)])
def test_one_slice_stays_a_volume(tmp_path, shape):
    _, image = loaded(tmp_path, Storage(), shape)
    assert nibabel.load(save(image, tmp_path)).shape == shape
    both = MetaTensor(torch.cat([image, image]), meta=image.meta)
    assert nibabel.load(save(both, tmp_path)).shape == (*shape, 2)


def test_a_result_on_another_grid_does_not_get_the_inputs_place(tmp_path):
    _, image = loaded(tmp_path, Storage(forms="disagreeing"))
    moved = GRID.affine @ np.diag([2.0, 1, 1, 1])
    meta = {
        **image.meta,
        "affine": torch.tensor(moved),
        "original_affine": torch.tensor(moved),
        "spatial_shape": (3, 5, 4),
    }
    result = nibabel.load(save(MetaTensor(image[:, ::2], meta=meta), tmp_path))
    assert result.shape == (3, 5, 4)
    np.testing.assert_allclose(result.affine, moved, atol=1e-5)


def test_an_input_that_is_gone(tmp_path):
    file, image = loaded(tmp_path, Storage())
    file.unlink()
    np.testing.assert_allclose(nibabel.load(save(image, tmp_path)).affine, GRID.affine, atol=1e-5)


@pytest.mark.parametrize("bundle", ["brats", "hippocampus", "pancreas", "brain"])
def test_every_bundle_of_volumes_saves_with_it(bundle):
    (folder,) = BUNDLES.glob(f"{bundle}_*")
    for name in ("evaluate.json", "inference.json"):
        text = (folder / "configs" / name).read_text(encoding="utf-8")
        assert '"_target_": "SaveCased"' in text
        assert "SaveImaged" not in text
    saver = SaveCased("pred", output_dir=".", output_postfix="seg", output_ext=".nii.gz").saver
    assert saver.writers == (InputGridWriter,)


def test_an_image_in_microns_is_read_in_mm_and_its_result_lies_on_it(tmp_path):
    affine = np.array([[0, 0, 3000, -3e4], [500, 0, 0, 12e3], [0, -1000, 0, 4e4], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(np.ones((6, 5, 4), np.float32), affine)
    image.header.set_xyzt_units("micron", "sec")
    image.set_qform(affine, 1)
    nibabel.save(image, tmp_path / "a.nii.gz")
    case = LoadCased("image")({"case": "case", "image": str(tmp_path / "a.nii.gz")})
    np.testing.assert_allclose(case["image"].affine[:3], affine[:3] / 1000, atol=1e-5)
    result = save(case["image"], tmp_path)
    np.testing.assert_allclose(nibabel.load(result).affine, affine)
    both = [SimpleITK.ReadImage(str(file)) for file in (tmp_path / "a.nii.gz", result)]
    for image in both:
        assert image.GetSpacing() == pytest.approx((0.5, 1, 3))
    assert both[0].GetOrigin() == both[1].GetOrigin()
    assert both[0].GetDirection() == both[1].GetDirection()
