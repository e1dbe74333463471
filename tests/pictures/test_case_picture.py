# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from segan_monai.errors import OutputError
from segan_monai.handlers import CasePicture, PhotographCasePicture

REGIONS = {"whole": [1, 2], "core": [2]}
LPS = np.diag([-1.0, -2.0, 3.0, 1.0])


def drawn(picture, batch, output):
    """Run the handler on one case; returns the files that the case has then."""
    picture.write(SimpleNamespace(state=SimpleNamespace(batch=[batch], output=[output])))
    return output.get("saved_files", [])


def volume_case(empty=False):
    image = torch.rand(2, 20, 16, 7) + 0.5
    label = torch.zeros(1, 20, 16, 7, dtype=torch.uint8)
    if not empty:
        label[0, 3:9, 2:8, 4] = 1
        label[0, 4:6, 4:6, 2:5] = 2
    ras = np.diag([1.0, 2.0, 3.0, 1.0])
    turned = MetaTensor(image.flip(1, 2), affine=ras)  # as the network sees it
    return {"case": "p1", "image": turned}, {"pred": MetaTensor(label, affine=LPS), "saved_files": ["p1_seg.nii.gz"]}


def panels(picture, batch, output):
    figure = picture.draw(batch, output)
    return figure.axes, figure.legends[0].get_texts()


def test_the_slice_with_the_largest_area_with_outlines_in_the_colours_of_the_regions(tmp_path):
    picture = CasePicture(tmp_path, REGIONS, ["t1c", "t2"])
    axes, legend = panels(picture, *volume_case())
    assert [axis.get_title() for axis in axes] == ["t1c, slice 5 of 7", "t2, slice 5 of 7"]
    assert [text.get_text() for text in legend] == ["whole", "core"]
    for axis in axes:
        assert len(axis.collections) == 2  # contours
        # LPS to RAS: x 3..8 becomes 11..16, y 2..7 becomes 8..13
        outline = np.concatenate([path.vertices for path in axis.collections[0].get_paths()])
        np.testing.assert_allclose([outline.min(0), outline.max(0)], [[10.5, 7.5], [16.5, 13.5]])
        assert axis.get_xlim()[0] > axis.get_xlim()[1], "the patient's right on the left"
        assert axis.get_aspect() == 2.0


def test_an_empty_prediction_shows_the_middle(tmp_path):
    axes, _ = panels(CasePicture(tmp_path, REGIONS, ["t1c", "t2"]), *volume_case(empty=True))
    assert [axis.get_title() for axis in axes] == ["t1c, slice 4 of 7", "t2, slice 4 of 7"]
    assert not any(axis.collections for axis in axes)


def test_the_file_is_one_of_the_results_of_the_case(tmp_path):
    files = drawn(CasePicture(tmp_path, REGIONS, ["t1c", "t2"]), *volume_case())
    assert files == ["p1_seg.nii.gz", str(tmp_path / "p1_overlay.png")]
    assert Image.open(files[1]).size == (680, 380)


def test_an_image_in_the_output(tmp_path):
    batch, output = volume_case()
    output["normalized"] = batch.pop("image")[:1]
    axes, _ = panels(CasePicture(tmp_path, REGIONS, ["T1"], image_key="normalized"), batch, output)
    assert len(axes) == 1


def test_a_failed_case_has_no_picture(tmp_path):
    engine = SimpleNamespace(state=SimpleNamespace(batch=[], output=[]))
    CasePicture(tmp_path, REGIONS, ["t1c", "t2"]).write(engine)
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_drawn_costs_nothing_else(tmp_path, caplog):
    batch, output = volume_case()
    with caplog.at_level(logging.WARNING):
        assert drawn(CasePicture(tmp_path, REGIONS, ["only one name"]), batch, output) == ["p1_seg.nii.gz"]
    assert "no picture of case p1 (ValueError: " in caplog.text
    with pytest.raises(OutputError, match=r"p1_overlay.png cannot be written"):
        drawn(CasePicture(tmp_path / "absent", REGIONS, ["t1c", "t2"]), batch, output)


def test_a_photograph(tmp_path):
    Image.fromarray(np.full((30, 40, 3), 200, np.uint8)).save(tmp_path / "skin.png")
    image = MetaTensor(torch.rand(3, 16, 16), meta={"source_files": str(tmp_path / "skin.png")})
    label = torch.zeros(1, 40, 30, dtype=torch.uint8)
    label[0, 10:20, 5:9] = 255
    picture = PhotographCasePicture(tmp_path, {"lesion": [255]})
    batch, output = {"case": "skin", "image": image}, {"pred": MetaTensor(label)}
    (axis,), _ = panels(picture, batch, output)
    outline = np.concatenate([path.vertices for path in axis.collections[0].get_paths()])
    np.testing.assert_allclose([outline.min(0), outline.max(0)], [[9.5, 4.5], [19.5, 8.5]])
    assert drawn(picture, batch, output) == [str(tmp_path / "skin_overlay.png")]
