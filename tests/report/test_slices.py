# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from segan_monai.report import load_previews, save_previews
from segan_monai.report.slices import PALETTE, slice_pictures
from tests.report.previews import preview


def decode(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGBA"))


def test_outlines_lie_on_the_square_in_every_panel():
    pictures = slice_pictures(preview("a"))
    assert len(pictures) == 3
    factor = 11  # 220 / 20
    image, truth, found = (decode(pictures[1][name]) for name in ("image", "reference", "prediction"))
    assert (
        image.shape == truth.shape == found.shape == (20 * factor * 2, 2 * 30 * factor, 4)
    )  # a pixel is twice as high
    edge = np.argwhere((truth[..., 3] > 0) & (np.abs(truth[..., :3].astype(int) - PALETTE[0]).max(-1) < 12))
    first = edge[edge[:, 1] < 30 * factor]
    assert [first.min(0).tolist(), first.max(0).tolist()] == [[110, 55], [329, 164]]  # rows 5 to 15, columns 5 to 15
    second = edge[edge[:, 1] >= 30 * factor] - (0, 30 * factor)
    np.testing.assert_array_equal(second, first)
    red = np.argwhere((found[..., 3] > 0) & (found[..., 1] < 100))
    assert red[:, 1].min() >= 6 * factor  # one voxel to the right
    white = np.argwhere((found[..., 3] > 0) & (found[..., :3].min(-1) > 200))
    assert [white.min(0).tolist()[0], white[:, 0].max()] == [4 * factor * 2, 16 * factor * 2]  # the RoI
    assert image[200, 100, 0] > 180
    assert image[20, 20, 0] < 30


def test_previews_come_back_from_their_file(tmp_path):
    before = {"worst": preview("b"), "best": preview("d", slices=1)}
    save_previews(tmp_path / "previews.npz", before)
    after = load_previews(tmp_path / "previews.npz")
    assert list(after) == ["worst", "best"]
    for role, old in before.items():
        for name, value in vars(old).items():
            np.testing.assert_array_equal(getattr(after[role], name), value)
