# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import dataclasses
import io
import re
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from segan_monai.report import load_previews, save_previews
from segan_monai.report.slices import PALETTE, region_colours, slice_pictures
from tests.report.previews import preview

SVG = "{http://www.w3.org/2000/svg}"
FACTOR = 15  # 300 / 20; a voxel is twice as high


def content_of(uri: str) -> bytes:
    return base64.b64decode(uri.split(",")[1])


def drawing(uri: str) -> ElementTree.Element:
    assert uri.startswith("data:image/svg+xml;base64,")
    return ElementTree.fromstring(content_of(uri))


def corners(path: ElementTree.Element) -> tuple[list[float], list[float]]:
    """Smallest and largest x and y of a path."""
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", path.attrib["d"]), float)
    return points.min(0).tolist(), points.max(0).tolist()


def test_outlines_lie_on_the_square_in_every_panel():
    pictures = slice_pictures(preview("a"))
    assert len(pictures) == 3
    image = np.asarray(Image.open(io.BytesIO(content_of(pictures[1]["image"]))))
    assert image.shape == (20 * FACTOR * 2, 2 * 30 * FACTOR)
    assert image[10 * 2 * FACTOR, 10 * FACTOR] > 180
    assert image[20, 20] < 30
    truth, found = (drawing(pictures[1][name]) for name in ("reference", "prediction"))
    for layer in (truth, found):
        assert (layer.attrib["width"], layer.attrib["height"]) == ("900", "600")
        (copy,) = layer.findall(f"{SVG}use")
        assert copy.attrib["x"] == "450"
    (solid,) = truth.iter(f"{SVG}path")
    assert corners(solid) == ([5 * FACTOR, 10 * FACTOR], [15 * FACTOR, 30 * FACTOR])  # rows and columns 5 to 15
    gaps, dashes = found.iter(f"{SVG}path")
    assert corners(gaps) == corners(dashes) == ([6 * FACTOR, 10 * FACTOR], [16 * FACTOR, 30 * FACTOR])
    (frame,) = found.iter(f"{SVG}rect")
    assert [float(frame.attrib[name]) for name in ("x", "y", "width", "height")] == [60, 120, 180, 360]


def test_prediction_and_reference_differ_in_width_and_dashes_and_regions_in_colour():
    first = preview("a")
    masks = np.concatenate([first.reference, first.reference], axis=1)
    two = dataclasses.replace(first, regions=["outer", "inner"], reference=masks, prediction=masks)
    picture = slice_pictures(two)[0]
    solid = list(drawing(picture["reference"]).iter(f"{SVG}path"))
    *gaps, first_dashes, last_dashes = drawing(picture["prediction"]).iter(f"{SVG}path")
    assert [line.attrib["stroke"] for line in solid] == list(region_colours(two.regions).values())
    assert [line.attrib["stroke"] for line in (first_dashes, last_dashes)] == [f"rgb{colour}" for colour in PALETTE[:2]]
    assert [line.attrib["stroke"] for line in gaps] == ["black", "black"]
    assert not any("stroke-dasharray" in line.attrib for line in solid + gaps)
    assert first_dashes.attrib["stroke-dasharray"]
    assert float(first_dashes.attrib["stroke-width"]) < float(solid[0].attrib["stroke-width"])


def test_a_hole_and_an_empty_mask():
    ring = preview("a")
    ring.reference[:, :, 8:12, 8:12] = False
    ring.prediction[:] = False
    picture = slice_pictures(ring)[0]
    (solid,) = drawing(picture["reference"]).iter(f"{SVG}path")
    assert solid.attrib["d"].count("M") == 2
    assert not list(drawing(picture["prediction"]).iter(f"{SVG}path"))


def test_previews_come_back_from_their_file(tmp_path):
    before = {"worst": preview("b"), "best": preview("d", slices=1)}
    save_previews(tmp_path / "previews.npz", before)
    after = load_previews(tmp_path / "previews.npz")
    assert list(after) == ["worst", "best"]
    for role, old in before.items():
        for name, value in vars(old).items():
            np.testing.assert_array_equal(getattr(after[role], name), value)
