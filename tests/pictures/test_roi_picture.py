# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The picture shows slices, outlines and boxes on the label map's grid."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from monai.data import MetaTensor

from segan_monai.handlers import RoIPicture
from segan_monai.inferers import RoISliceInferer
from tests.networks.known_lsnet import known


def test_boxes_and_small_images_are_scaled_to_the_label_map(tmp_path):
    small = torch.full((1, 32, 48, 3), 0.1)
    small[0, 8:16, 20:40, 1] = 1
    label = torch.zeros(1, 64, 96, 3)
    label[0, 16:32, 40:80, 1] = 1
    inferer = RoISliceInferer()
    inferer(small[None], known())
    picture = RoIPicture(
        inferer, file=tmp_path / "p.png", regions={"a": [1]}, prediction_regions={"a": [1]}, modalities=["CT"]
    )
    batch = [{"case": "x", "image": MetaTensor(small), "label": MetaTensor(label)}]
    picture.collect(
        SimpleNamespace(state=SimpleNamespace(batch=batch, output=[{"pred": MetaTensor(label), "dice": {"a": 1.0}}]))
    )
    (shown,) = picture.slices
    assert shown.image.shape == (1, 64, 96, 3)
    (box,) = shown.boxes[shown.middle]
    np.testing.assert_allclose(box, [15.5, 39.5, 31.5, 79.5])  # edges, where voxel 0 has its centre at 0
    bright = np.argwhere(shown.image[0, ..., shown.middle] > 0.6)
    np.testing.assert_allclose([bright.min(0), bright.max(0)], [[16, 40], [31, 79]], atol=1)
    picture.draw(SimpleNamespace())
    assert (tmp_path / "p.png").stat().st_size > 5000
