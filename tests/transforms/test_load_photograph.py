# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import decollate_batch, list_data_collate
from monai.transforms import Compose, Invertd
from PIL import Image, ImageOps

from segan_monai.errors import DataError
from segan_monai.transforms import LoadPhotographd, read_mask, read_photograph

LESION = {"lesion": [255]}


def scene(columns=320, rows=200):
    """Pixels (rows, columns, 3) with no symmetry: red grows to the right, green downwards, a blue box at upper left."""
    pixels = np.zeros((rows, columns, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, columns)[None]
    pixels[..., 1] = np.linspace(0, 255, rows)[:, None]
    pixels[: rows // 4, : columns // 4, 2] = 255
    return pixels


def box_mask(columns=320, rows=200):
    mask = np.zeros((rows, columns), np.uint8)
    mask[: rows // 4, : columns // 4] = 255
    return mask


@pytest.fixture
def case(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "photo.jpg", quality=95)
    Image.fromarray(box_mask()).save(tmp_path / "photo_segmentation.png")
    return {"case": "p1", "image": str(tmp_path / "photo.jpg"), "label": str(tmp_path / "photo_segmentation.png")}


def with_orientation(picture, orientation, file):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(file, exif=exif, quality=95)


def test_photograph_and_mask_lie_on_each_other(case):
    loaded = LoadPhotographd(size=(64, 40), regions=LESION)(case)
    image, label = loaded["image"], loaded["label"]
    assert image.shape == (3, 64, 40)
    assert image.dtype == torch.float32
    assert 0 <= image.min() < image.max() <= 1
    assert label.shape == (1, 64, 40)
    assert label.unique().tolist() == [0, 255]
    # the first axis is that of columns: red grows along it, green along the second
    assert np.corrcoef(image[0].mean(1), np.arange(64))[0, 1] > 0.999
    assert np.corrcoef(image[1].mean(0), np.arange(40))[0, 1] > 0.999
    assert torch.equal(image[2] > 0.5, label[0] == 255)
    assert torch.count_nonzero(label) == 16 * 10
    assert image.meta["filename_or_obj"].endswith("/p1.png")
    assert image.meta["source_files"] == case["image"]


@pytest.mark.parametrize("shape", [(1024, 640), (1021, 643)])
def test_decoding_at_a_fraction_changes_next_to_nothing(tmp_path, shape):
    Image.fromarray(scene(*shape)).save(tmp_path / "a.jpg", quality=95)
    fast, own_size = read_photograph(tmp_path / "a.jpg", (64, 40))
    slow = np.asarray(Image.open(tmp_path / "a.jpg").resize((64, 40), Image.Resampling.BILINEAR)).swapaxes(0, 1)
    assert own_size == shape
    # of the two channels that change smoothly; a shift by half a new pixel would be 2 to 3 grey values
    difference = np.abs(fast[..., :2].astype(int) - slow[..., :2])
    assert difference.mean() < 0.6
    with Image.open(tmp_path / "a.jpg") as picture:
        picture.draft(None, (128, 80))
        assert picture.size[0] < 300, "this file is really decoded at a fraction"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_of_telephones(tmp_path, orientation):
    file = tmp_path / "phone.jpg"
    with_orientation(Image.fromarray(scene()), orientation, file)
    displayed = np.asarray(ImageOps.exif_transpose(Image.open(file))).swapaxes(0, 1)
    size = (40, 64) if orientation > 4 else (64, 40)
    pixels, own_size = read_photograph(file, size)
    assert own_size == displayed.shape[:2]
    assert pixels.shape == (*size, 3)
    assert np.abs(pixels[..., :2].astype(int) - displayed[2::5, 2::5, :2]).max() < 12
    # the mask is drawn on what is displayed
    Image.fromarray((displayed[..., 2] > 127).T.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    loaded = LoadPhotographd(size=size, regions=LESION)({"image": str(file), "label": str(tmp_path / "mask.png")})
    assert torch.equal(loaded["image"][2] > 0.5, loaded["label"][0] == 255)


def test_mask_of_the_stored_picture_is_refused_with_the_reason(tmp_path):
    with_orientation(Image.fromarray(scene()), 6, tmp_path / "phone.jpg")
    Image.fromarray(box_mask()).save(tmp_path / "mask.png")
    message = r"mask\.png has 320x200 pixels, but .*phone\.jpg is displayed with 200x320\. .* EXIF .*rotate the mask"
    with pytest.raises(DataError, match=message):
        LoadPhotographd()({"image": tmp_path / "phone.jpg", "label": tmp_path / "mask.png"})


def test_mask_of_another_size(case):
    Image.fromarray(box_mask(160, 100)).save(case["label"])
    message = r"_segmentation\.png has 160x100 pixels, but .*photo\.jpg is displayed with 320x200\. Take the mask"
    with pytest.raises(DataError, match=message):
        LoadPhotographd(size=(64, 40))(case)


def test_values_are_looked_for_in_the_whole_mask(case):
    mask = box_mask()
    mask[199, 319] = 17  # one pixel, which resizing would drop
    Image.fromarray(mask).save(case["label"])
    message = r"_segmentation\.png holds the values 17 \(1 pixels\)\. Expected 0, 255: threshold .*--regions"
    with pytest.raises(DataError, match=message):
        LoadPhotographd(size=(64, 40), regions=LESION)(case)
    Image.fromarray(box_mask() // 255).save(case["label"])
    with pytest.raises(DataError, match=r"holds the values 1 \(4000 pixels\)"):
        LoadPhotographd(size=(64, 40), regions=LESION)(case)
    loaded = LoadPhotographd(size=(64, 40), regions={"lesion": [1]})(case)
    assert loaded["label"].unique().tolist() == [0, 1]


def test_mask_of_one_bit(tmp_path):
    Image.fromarray(box_mask()).convert("1").save(tmp_path / "mask.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "mask.png")), box_mask())


def test_mask_in_colour(case):
    Image.fromarray(scene()).save(case["label"])
    with pytest.raises(DataError, match=r"_segmentation\.png has mode RGB\. Expected a mask of one channel .*'L'"):
        LoadPhotographd()(case)


def test_truncated_photograph(case, tmp_path):
    content = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"photo\.jpg cannot be read \(OSError: .*truncated.*copy or download it again"):
        LoadPhotographd(size=(32, 20))(case)
    (tmp_path / "photo.jpg").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"photo\.jpg cannot be read \(UnidentifiedImageError: .*Expected JPEG, PNG"):
        LoadPhotographd()(case)


def test_truncated_mask(case, tmp_path):
    file = tmp_path / "photo_segmentation.png"
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"_segmentation\.png cannot be read \(.*copy or download it again"):
        LoadPhotographd()(case)


def test_missing_file(case, tmp_path):
    (tmp_path / "photo.jpg").unlink()
    with pytest.raises(DataError, match=r"photo\.jpg: there is no such file\. Correct the path"):
        LoadPhotographd()(case)


def test_alpha_is_dropped(tmp_path):
    opaque = Image.fromarray(scene())
    opaque.save(tmp_path / "rgb.png")
    clear = opaque.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "rgba.png")
    first, second = (read_photograph(tmp_path / f"{name}.png", (64, 40))[0] for name in ("rgb", "rgba"))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_photograph_not_in_colour(tmp_path, mode):
    Image.fromarray(scene()).convert(mode).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=rf"a\.jpg has mode {mode}\. Expected a colour photograph .*convert\('RGB'\)"):
        read_photograph(tmp_path / "a.jpg", (64, 40))


def test_masks_may_stay_as_they_are(case):
    loaded = LoadPhotographd(size=(64, 40), resize_masks=False)(case)
    assert loaded["image"].shape == (3, 64, 40)
    assert np.array_equal(loaded["label"][0].numpy(), box_mask().T)


@pytest.mark.parametrize("size", [(64, 40), (33, 47)])
def test_predictions_come_back_to_the_photographs_size(case, size):
    preprocessing = Compose([LoadPhotographd(keys="image", size=size)])
    batch = list_data_collate([preprocessing(case)])
    batch["pred"] = batch["image"][:, 2:]  # the blue channel as probability
    restored = Compose([Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False)])
    (result,) = [restored(item) for item in decollate_batch(batch)]
    assert result["pred"].shape == (1, 320, 200)
    wrong = (result["pred"][0] > 0.5).numpy() != (box_mask().T == 255)
    assert not wrong[:70, :40].any(), "wrong at the edge only"
    assert not wrong[90:].any()
    assert not wrong[:, 60:].any()
    assert wrong.mean() < 0.01
    assert torch.equal(result["pred"].affine, torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)))


def test_the_affine_of_the_small_picture_covers_the_same_area(case):
    small = LoadPhotographd(keys="image", size=(64, 40))(case)["image"]
    corner = small.affine @ torch.tensor([-0.5, -0.5, 0, 1], dtype=torch.float64)
    opposite = small.affine @ torch.tensor([63.5, 39.5, 0, 1], dtype=torch.float64)
    assert corner[:2].tolist() == [0.5, 0.5]
    assert opposite[:2].tolist() == [-319.5, -199.5]


@pytest.mark.real_data
def test_the_mask_fits_the_real_photograph(data_dir):
    # A lesion takes up blue light: so it does under its mask, more than under the mask turned over.
    folder = data_dir / "isic2017"
    for name in ("ISIC_0012903", "ISIC_0013085", "ISIC_0013948", "ISIC_0014270", "ISIC_0014386"):
        files = {"image": folder / f"images/{name}.jpg", "label": folder / f"masks/{name}_segmentation.png"}
        loaded = LoadPhotographd(size=(180, 135), regions=LESION)(files)
        blue, mask = loaded["image"].as_tensor()[2], loaded["label"].as_tensor()[0] == 255
        contrast = [float(blue[~m].mean() - blue[m].mean()) for m in (mask, mask.flip(0), mask.flip(1))]
        assert contrast[0] == max(contrast) > 0.05


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_photographs_of_every_colour_mode_are_the_same(mode, tmp_path):
    colours = Image.new("RGB", (6, 4), (200, 30, 10))
    colours.paste((10, 60, 250), (0, 0, 3, 4))
    (colours.quantize(4) if mode == "P" else colours.convert(mode)).save(tmp_path / "a.PNG")
    pixels, size = read_photograph(tmp_path / "a.PNG", (6, 4))
    assert size == (6, 4)
    assert np.array_equal(pixels, np.asarray(colours).swapaxes(0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK", "I;16"])
def test_other_modes_are_named(mode, tmp_path):
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    pixels = Image.fromarray(np.full((4, 6), 90, np.uint16 if mode == "I;16" else np.uint8))
    (pixels if mode == "I;16" else pixels.convert(mode)).save(file)
    with pytest.raises(DataError, match=rf"a\.\w+ has mode {mode}\. Expected a colour photograph .*convert\('RGB'\)"):
        read_photograph(file, (6, 4))


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA", "I;16"])
def test_masks_of_other_modes_are_named(mode, tmp_path):
    pixels = Image.fromarray(np.full((4, 6), 255, np.uint16 if mode == "I;16" else np.uint8))
    (pixels if mode == "I;16" else pixels.convert(mode)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=rf"m\.png has mode {mode}\. Expected a mask of one channel of 8 bits"):
        read_mask(tmp_path / "m.png")
