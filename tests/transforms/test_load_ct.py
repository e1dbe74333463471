# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of CT slices as volumes in Hounsfield units."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from segan_monai.errors import ConfigError, DataError
from segan_monai.transforms import LoadCTd


@pytest.fixture
def pictures(tmp_path):
    """A slice of 5 rows and 7 columns, grey 0 to 34, and a mask."""
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    mask = np.zeros((5, 7), np.uint8)
    mask[1, 2:4] = [128, 255]
    mask[3, 3] = 127
    Image.fromarray(grey).save(tmp_path / "slice.png")
    Image.fromarray(np.stack([mask] * 3, -1)).save(tmp_path / "mask.png")
    return {"case": "p-1", "image": str(tmp_path / "slice.png"), "label": str(tmp_path / "mask.png")}


def test_grey_becomes_hounsfield_units_and_columns_come_first(pictures):
    case = LoadCTd(picture_window=[-100, 155])(pictures)
    assert case["image"].shape == case["label"].shape == (1, 7, 5, 1)
    assert case["image"][0, 2, 1, 0] == -100 + 9
    assert case["image"].dtype == torch.float32
    assert case["label"].nonzero().tolist() == [[0, 2, 1, 0], [0, 3, 1, 0]], "above 127"
    assert case["label"].unique().tolist() == [0, 1]
    assert case["image"].meta["filename_or_obj"].endswith("p-1.nii.gz")


def test_grey_of_the_ignore_label_is_kept(pictures):
    label = LoadCTd(ignore_label=127)(pictures)["label"]
    assert label.unique().tolist() == [0, 1, 127]
    assert (label == 127).nonzero().tolist() == [[0, 3, 3, 0]]
    assert label[0, :, 1, 0].tolist() == [0, 0, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("value", [128, 255])
def test_an_ignore_label_that_is_the_organ_of_a_mask_picture_is_refused(value, pictures, tmp_path, write_volume):
    with pytest.raises(ConfigError, match=rf"ignore_label is {value}, .*mask\.png .*from 1 to 127, such as 127"):
        LoadCTd(ignore_label=value)(pictures)
    volume = np.array([0, 1, value], np.int16).reshape(3, 1, 1)
    for name in ("ct", "seg"):
        write_volume(tmp_path / f"{name}.nii.gz", volume)
    volumes = {"image": str(tmp_path / "ct.nii.gz"), "label": str(tmp_path / "seg.nii.gz")}
    assert LoadCTd(ignore_label=value)(volumes)["label"].flatten().tolist() == [0, 1, value], "a volume keeps it"


@pytest.mark.parametrize(
    ("axes", "codes"),
    [("LP", ("L", "P", "S")), ("LA", ("L", "A", "S")), ("RA", ("R", "A", "S")), ("PL", ("P", "L", "S"))],
)
def test_axes_are_the_affines(axes, codes, pictures):
    case = LoadCTd(picture_axes=axes)(pictures)
    assert nibabel.aff2axcodes(case["image"].affine.numpy()) == codes
    torch.testing.assert_close(case["image"].affine, case["label"].affine)


def test_volumes_are_loaded_as_they_are(tmp_path, write_volume, oblique):
    volume = np.random.default_rng(0).normal(0, 300, (6, 5, 1)).astype(np.float32)
    write_volume(tmp_path / "ct.nii.gz", volume, oblique)
    write_volume(tmp_path / "seg.nii.gz", (volume > 0).astype(np.uint8), oblique)
    case = LoadCTd()({"image": str(tmp_path / "ct.nii.gz"), "label": str(tmp_path / "seg.nii.gz")})
    np.testing.assert_array_equal(case["image"][0].numpy(), volume)
    np.testing.assert_allclose(case["image"].affine.numpy(), oblique, atol=1e-6)
    assert case["label"].sum() == (volume > 0).sum()


def test_a_picture_is_turned_as_its_orientation_says(pictures, tmp_path):
    """The mask was drawn on what a viewer shows."""
    with Image.open(pictures["image"]) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6  # to be turned a quarter clockwise
        shown = picture.transpose(Image.Transpose.ROTATE_270)
        picture.save(tmp_path / "turned.png", exif=exif)
    shown.save(tmp_path / "shown.png")
    turned, expected = (LoadCTd("image")({"image": str(tmp_path / f"{name}.png")}) for name in ("turned", "shown"))
    assert turned["image"].shape == (1, 5, 7, 1)
    assert torch.equal(turned["image"].as_tensor(), expected["image"].as_tensor())


@pytest.mark.parametrize(("offset", "said"), [(0, False), (1024, True), (-1500, True)])
def test_values_that_are_no_hounsfield_units_are_named(offset, said, tmp_path, write_volume, caplog):
    values = np.linspace(-1000, 1000, 60, dtype=np.float32).reshape(5, 4, 3) + offset
    write_volume(tmp_path / "ct.nii.gz", values)
    case = {"case": "a", "image": str(tmp_path / "ct.nii.gz")}
    LoadCTd("image", hounsfield=True)(case)
    text = f"case a has values from {-1000 + offset} to {1000 + offset}; expected Hounsfield units"
    assert (text in caplog.text) == said
    caplog.clear()
    LoadCTd("image")(case)
    assert not caplog.text


def test_volumes_for_a_network_of_pictures_are_named(pictures, tmp_path, write_volume, caplog):
    load = LoadCTd("image", of_pictures=True, hounsfield=True)
    load({key: pictures[key] for key in ("case", "image")})
    assert not caplog.text
    write_volume(tmp_path / "ct.nii.gz", np.linspace(-900, 900, 60, dtype=np.float32).reshape(5, 4, 3))
    load({"case": "a", "image": str(tmp_path / "ct.nii.gz")})
    assert "case a is a volume, but the network was trained on slices saved as pictures" in caplog.text


def test_bad_pictures_are_named(pictures, tmp_path):
    load = LoadCTd()
    with pytest.raises(DataError, match=r"none\.jpg: there is no such file"):
        load({**pictures, "image": str(tmp_path / "none.jpg")})
    (tmp_path / "bad.png").write_bytes((tmp_path / "slice.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"bad\.png cannot be read"):
        load({**pictures, "image": str(tmp_path / "bad.png")})
    Image.new("RGB", (7, 5), (200, 20, 20)).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match="mode RGB that is not grey"):
        load({**pictures, "image": str(tmp_path / "colour.png")})
    Image.fromarray(np.zeros((5, 7), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="not grey with 8 bits"):
        load({**pictures, "image": str(tmp_path / "deep.png")})
    Image.fromarray(np.ones((5, 7), np.uint8)).save(tmp_path / "ones.png")
    with pytest.raises(DataError, match=r"brightest pixel is 1\. Expected 0 and 255"):
        load({**pictures, "label": str(tmp_path / "ones.png")})
    Image.fromarray(np.zeros((5, 8), np.uint8)).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match=r"has shape \(7, 5, 1\), but .*wide\.png has \(8, 5, 1\)"):
        load({**pictures, "label": str(tmp_path / "wide.png")})


def test_an_empty_mask_is_fine(pictures, tmp_path):
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "empty.png")
    assert LoadCTd()({**pictures, "label": str(tmp_path / "empty.png")})["label"].sum() == 0


@pytest.mark.parametrize("settings", [{"picture_axes": "LR"}, {"picture_axes": "L"}, {"picture_window": [5, 5]}])
def test_settings_without_sense(settings):
    with pytest.raises(ConfigError, match="expected"):
        LoadCTd(**settings)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_grey_pictures_of_every_mode_are_the_same(mode, tmp_path):
    grey = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7) * 7)
    picture = grey.convert("RGB").quantize(64) if mode == "P" else grey.convert(mode)
    assert picture.mode == mode
    picture.save(tmp_path / "a.PNG")
    loaded = LoadCTd(keys=["image"], picture_window=(-100, 155))({"image": str(tmp_path / "a.PNG")})["image"]
    np.testing.assert_allclose(loaded[0, :, :, 0].numpy().T, np.asarray(grey).astype(float) - 100)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA"])
def test_masks_of_every_mode_are_the_same(mode, tmp_path):
    organ = np.zeros((5, 7), bool)
    organ[1:3, 2:6] = True
    mask = Image.fromarray(organ.astype(np.uint8) * 255)
    mask = mask.convert("RGB").quantize(2) if mode == "P" else mask.convert(mode)
    mask.save(tmp_path / "mask.png")
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "a.png")
    case = LoadCTd()({"image": str(tmp_path / "a.png"), "label": str(tmp_path / "mask.png")})
    assert np.array_equal(case["label"][0, :, :, 0].numpy().T, organ)


def test_pictures_that_are_no_grey_values_are_named(tmp_path):
    grey = Image.fromarray(np.full((5, 7), 90, np.uint8))
    see_through = grey.convert("RGBA")
    see_through.putpixel((0, 0), (90, 90, 90, 0))
    see_through.save(tmp_path / "a.png")
    Image.new("P", (7, 5)).save(tmp_path / "b.png")
    colours = Image.new("P", (7, 5))
    colours.putpalette([200, 20, 20])
    colours.save(tmp_path / "b.png")
    grey.convert("CMYK").save(tmp_path / "c.jpg")
    for name, message in (
        ("a.png", r"a\.png is a picture of mode RGBA with transparent pixels, .* save it without alpha channel"),
        ("b.png", r"b\.png is a picture of mode P that is not grey with 8 bits.* without colour map"),
        ("c.jpg", r"c\.jpg is a picture of mode CMYK .* convert printing colours \(CMYK\) to grey"),
    ):
        with pytest.raises(DataError, match=message):
            LoadCTd(keys=["image"])({"image": str(tmp_path / name)})
