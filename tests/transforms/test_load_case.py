# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import SaveImage
from PIL import Image

from segan_monai.errors import DataError
from segan_monai.transforms import LoadCased, load_case
from segan_monai.volume_files import read_volume

SHAPE = (4, 3, 2)


def ramp(start: int = 0) -> np.ndarray:
    return (start + np.arange(24)).reshape(SHAPE).astype(np.float32)


@pytest.fixture
def case(tmp_path, write_volume, oblique):
    """Two modalities, one of them .mha, and a label map, on one oblique grid."""
    return {
        "case": "sub.01",  # a dot: not an extension
        "image": [
            str(write_volume(tmp_path / "t1c.mha", ramp(), oblique)),
            str(write_volume(tmp_path / "t2.nii.gz", ramp(100), oblique)),
        ],
        "label": str(write_volume(tmp_path / "seg.nii.gz", (ramp() % 3).astype(np.uint8), oblique)),
        "grade": "HGG",
    }


def test_stacks_modalities_in_order(case, oblique):
    loaded = LoadCased(num_channels=2)(case)
    image, label = loaded["image"], loaded["label"]
    assert isinstance(image, MetaTensor)
    assert (image.dtype, image.shape, label.shape) == (torch.float32, (2, *SHAPE), (1, *SHAPE))
    np.testing.assert_array_equal(image.numpy(), np.stack([ramp(), ramp(100)]))
    np.testing.assert_array_equal(label.numpy()[0], ramp() % 3)
    np.testing.assert_allclose(image.affine.numpy(), oblique, atol=1e-5)
    assert loaded["grade"] == "HGG"
    assert isinstance(case["image"], list)  # the case itself is as it was


def test_every_file_is_read_once(case, monkeypatch):
    read = []
    monkeypatch.setattr(load_case, "read_volume", lambda file: read.append(str(file)) or read_volume(file))
    LoadCased()(case)
    assert read == [*case["image"], case["label"]]


def test_result_is_saved_under_the_name_of_the_case(case, tmp_path, oblique):
    loader = DataLoader(Dataset([case], LoadCased()), batch_size=1)
    image = decollate_batch(next(iter(loader)))[0]["image"]
    assert image.meta["source_files"].split("\n") == case["image"]
    saver = SaveImage(
        output_dir=tmp_path / "out", output_postfix="seg", separate_folder=False, output_dtype=np.uint8, print_log=False
    )
    saver(image[:1])
    saved = nibabel.load(tmp_path / "out/sub.01_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(saved.dataobj), ramp())
    np.testing.assert_allclose(saved.affine, oblique, atol=1e-5)


def test_formats_collate_with_each_other(case):
    first = {**case, "image": case["image"][:1]}
    second = {**case, "case": "other", "image": case["image"][1:]}
    batch = next(iter(DataLoader(Dataset([first, second], LoadCased()), batch_size=2)))
    assert batch["image"].shape == (2, 1, *SHAPE)


def test_without_case_the_file_keeps_its_name(case):
    del case["case"]
    assert LoadCased()(case)["image"].meta["filename_or_obj"] == case["image"][0]


def test_channels_of_a_4d_image(tmp_path, write_volume):
    stack = np.stack([ramp(100 * channel) for channel in range(4)], axis=-1)
    for name in ("a.nii.gz", "a.nrrd"):
        if name.endswith(".nrrd"):  # a vector image
            path = tmp_path / name
            import SimpleITK

            image = SimpleITK.GetImageFromArray(stack.transpose(2, 1, 0, 3), isVector=True)
            SimpleITK.WriteImage(image, str(path))
        else:
            path = write_volume(tmp_path / name, stack)
        image = LoadCased("image", num_channels=2)({"image": path, "channels": [2, 0]})["image"]
        np.testing.assert_array_equal(image.numpy(), np.stack([ramp(200), ramp()]))
        assert LoadCased("image")({"image": path})["image"].shape == (4, *SHAPE)


def test_scaled_label_map_keeps_its_values(tmp_path):
    label = nibabel.Nifti1Image(ramp() % 5, np.eye(4))
    label.header.set_data_dtype(np.uint8)  # nibabel scales: 4 is stored as 255, 1 as 64, which reads as 1.004
    nibabel.save(label, tmp_path / "seg.nii.gz")
    assert 1 not in nibabel.load(tmp_path / "seg.nii.gz").get_fdata()
    loaded = LoadCased()({"image": tmp_path / "seg.nii.gz", "label": tmp_path / "seg.nii.gz"})["label"]
    np.testing.assert_array_equal(loaded.numpy()[0], ramp() % 5)


def test_label_map_with_a_last_axis_of_one(tmp_path, write_volume):
    path = write_volume(tmp_path / "a.nii.gz", ramp()[..., None])
    assert LoadCased()({"image": path, "label": path})["label"].shape == (1, *SHAPE)


def test_arrays_pass_through_checked():
    given = {"image": np.ones((2, 4, 4), np.int16), "label": torch.ones(1, 4, 4, dtype=torch.uint8), "case": "x"}
    loaded = LoadCased(num_channels=2)(given)
    assert (loaded["image"].dtype, loaded["label"].dtype) == (torch.float32, torch.float32)
    assert loaded["image"].meta["filename_or_obj"] == "x.nii.gz"
    with pytest.raises(DataError, match="the given array: expected 3 channels, found 2"):
        LoadCased(num_channels=3)(given)
    with pytest.raises(DataError, match=r"the given array has shape \(4, 4\), but .* has \(4, 5\)"):
        LoadCased()({**given, "label": torch.ones(1, 4, 5)})


def test_missing_keys(case):
    del case["label"]
    assert "label" not in LoadCased(allow_missing_keys=True)(case)
    with pytest.raises(DataError, match=r"case sub\.01 has no 'label', only case, image, grade"):
        LoadCased()(case)


def test_missing_file(case):
    case["image"][1] += ".gone"
    with pytest.raises(DataError, match=r"t2\.nii\.gz\.gone: there is no such file"):
        LoadCased()(case)


@pytest.mark.parametrize("name", ["t.nii.gz", "t.nii", "t.mha"])
@pytest.mark.parametrize("kept", [0.0, 0.7])
def test_truncated_file(tmp_path, write_volume, name, kept):
    noise = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    path = write_volume(tmp_path / name, noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=rf"{name} cannot be read \(.*truncated or damaged; copy or download it again"):
        LoadCased("image")({"image": path})


def test_nifti_2_and_big_endian(tmp_path):
    for name, image in {
        "2.nii.gz": nibabel.Nifti2Image(ramp(), np.eye(4)),
        "big.nii.gz": nibabel.Nifti1Image(ramp(), np.eye(4), nibabel.Nifti1Header(endianness=">")),
    }.items():
        nibabel.save(image, tmp_path / name)
        np.testing.assert_array_equal(LoadCased("image")({"image": tmp_path / name})["image"].numpy()[0], ramp())


def test_damaged_compression(tmp_path, write_volume):
    path = write_volume(tmp_path / "t.nii.gz", np.random.default_rng(0).integers(0, 9, (40, 40, 40)).astype(np.uint8))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the checksum: what it belongs to is no longer what was written
    path.write_bytes(content)
    with pytest.raises(DataError, match="truncated or damaged"):
        LoadCased("image")({"image": path})


@pytest.mark.parametrize("name", ["flat.nii.gz", "flat.mha"])
def test_2d_file(tmp_path, write_volume, name):
    if name.endswith(".mha"):
        import SimpleITK

        path = tmp_path / name
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((4, 3), np.float32)), str(path))
    else:
        path = write_volume(tmp_path / name, np.ones((4, 3), np.float32))
    with pytest.raises(DataError, match=rf"{name} is a 2-D image of shape .*Expected a 3-D volume"):
        LoadCased("image")({"image": path})


def test_a_picture_in_colour_is_no_volume(tmp_path):
    Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(tmp_path / "screenshot.png")
    with pytest.raises(DataError, match=r"screenshot.png is a 2-D image of shape \(5, 6\). Expected a 3-D volume"):
        LoadCased()({"image": str(tmp_path / "screenshot.png"), "label": "unused"})


def test_5d_file(tmp_path, write_volume):
    path = write_volume(tmp_path / "a.nii.gz", np.ones((4, 3, 2, 5, 2), np.float32))
    with pytest.raises(DataError, match=r"has shape \(4, 3, 2, 5, 2\)\. Expected \(H, W, D\) or"):
        LoadCased("image")({"image": path})


def test_modalities_of_different_shape(case, tmp_path, write_volume):
    case["image"][1] = write_volume(tmp_path / "wide.nii.gz", np.ones((4, 3, 5), np.float32))
    message = (
        r"t1c\.mha has shape \(4, 3, 2\), but .*wide\.nii\.gz has \(4, 3, 5\).*register and resample.*SimpleITK.*ANTs"
    )
    with pytest.raises(DataError, match=message):
        LoadCased()(case)


def test_modalities_of_different_affine(case, tmp_path, write_volume, oblique):
    oblique[0, 3] += 0.05  # within the tolerance
    case["image"][1] = write_volume(tmp_path / "near.nii.gz", ramp(), oblique)
    LoadCased()(case)
    oblique[0, 3] += 1.5
    case["image"][1] = write_volume(tmp_path / "far.nii.gz", ramp(), oblique)
    message = r"t1c\.mha has affine .*-12\.5\].*far\.nii\.gz has .*-10\.95\].* 1\.55 mm apart, .* \(tolerance 0\.25 vox"
    with pytest.raises(DataError, match=message):
        LoadCased()(case)


def test_label_map_on_another_grid(case, tmp_path, write_volume, oblique):
    case["label"] = write_volume(tmp_path / "wide.nii.gz", np.ones((4, 3, 5), np.uint8), oblique)
    with pytest.raises(
        DataError, match=r"t1c\.mha, .*t2\.nii\.gz has shape .*wide\.nii\.gz has \(4, 3, 5\).*nearest-neigh"
    ):
        LoadCased()(case)
    case["label"] = write_volume(
        tmp_path / "flipped.nii.gz", np.ones(SHAPE, np.uint8), oblique @ np.diag([-1, 1, 1, 1])
    )
    with pytest.raises(DataError, match=r"flipped\.nii\.gz has .*nearest-neighbour"):
        LoadCased()(case)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite(tmp_path, write_volume, bad):
    array = ramp()
    array[1, 2, 0] = array[3, 0, 1] = bad
    path = write_volume(tmp_path / "a.nii.gz", array)
    with pytest.raises(
        DataError, match=r"a\.nii\.gz: 2 of 24 voxels are NaN or infinite, the first at index \(1, 2, 0\)"
    ):
        LoadCased("image")({"image": path})


def test_large_values_are_not_taken_for_infinite(tmp_path, write_volume):
    path = write_volume(tmp_path / "a.nii.gz", np.full(SHAPE, 3e38, np.float32))  # the sum is infinite
    assert LoadCased("image")({"image": path})["image"].max() == np.float32(3e38)


def test_wrong_number_of_channels(case):
    message = r"t2\.nii\.gz: expected 3 channels \(t1c, t2, flair\), found 2 in an image of shape \(2, 4, 3, 2\)"
    with pytest.raises(DataError, match=message):
        LoadCased(modalities=("t1c", "t2", "flair"))(case)


def test_label_values_that_count_as_background(case):
    label = LoadCased(background_labels=[2])(case)["label"]
    np.testing.assert_array_equal(label.numpy()[0], np.where(ramp() % 3 == 2, 0, ramp() % 3))
    np.testing.assert_array_equal(LoadCased(background_labels=[100])(case)["image"].numpy()[1], ramp(100))


def test_channels_that_are_not_there(case):
    with pytest.raises(DataError, match=r"has 1 channels, but the datalist selects \[2, 0\]"):
        LoadCased()({**case, "image": case["image"][1], "channels": [2, 0]})


def test_4d_among_several_images(case, tmp_path, write_volume):
    case["image"][1] = write_volume(tmp_path / "a.nii.gz", np.ones((*SHAPE, 2), np.float32))
    with pytest.raises(DataError, match=r"a\.nii\.gz is one of 2 images of a case and has 2 channels"):
        LoadCased()(case)


def test_label_map_of_fractions(case, tmp_path, write_volume):
    case["label"] = write_volume(tmp_path / "soft.nii.gz", np.where(ramp() < 5, 0.25, 1).astype(np.float32))
    with pytest.raises(
        DataError, match=r"soft\.nii\.gz: 5 voxels of the label map are not whole numbers, such as 0\.25"
    ):
        LoadCased()(case)


def test_label_map_of_several_channels(case, tmp_path, write_volume):
    case["label"] = write_volume(tmp_path / "onehot.nii.gz", np.ones((*SHAPE, 3), np.uint8))
    with pytest.raises(DataError, match=r"onehot\.nii\.gz: a label map of shape \(3, 4, 3, 2\).*Expected one channel"):
        LoadCased()(case)


@pytest.mark.real_data
def test_hippocampus(data_dir):
    folder = Path(data_dir, "msd_hippocampus")
    name = "hippocampus_001.nii.gz"
    loaded = LoadCased()({"image": folder / "imagesTr" / name, "label": folder / "labelsTr" / name})
    expected = nibabel.load(folder / "imagesTr" / name)
    np.testing.assert_array_equal(loaded["image"].numpy()[0], expected.get_fdata(dtype=np.float32))
    assert loaded["label"].unique().tolist() == [0, 1, 2]
