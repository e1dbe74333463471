# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Planes to another size and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd

from segan_monai.transforms import ResizeSlicesd, resize_planes


def test_means_of_blocks_and_values_of_masks():
    ramp = torch.arange(8.0).repeat(8, 1).T[None, :, :, None]
    assert resize_planes(ramp, (4, 4))[0, 1:3, 0, 0].tolist() == pytest.approx([2.5, 4.5])
    noise = torch.rand(1, 64, 64, 2)
    assert resize_planes(noise, (8, 8)).std() < 0.3 * noise.std(), "averaged, not picked"
    mask = (torch.rand(1, 9, 9, 1) > 0.5).to(torch.uint8) * 7
    assert set(resize_planes(mask, (5, 4)).unique().tolist()) <= {0, 7}
    assert resize_planes(noise, (64, 64)) is noise


def test_outer_edges_stay_where_they_were_in_millimetres(oblique):
    volume = MetaTensor(torch.rand(1, 12, 20, 3), affine=torch.tensor(oblique))
    small = ResizeSlicesd("image", (6, 40))({"image": volume})["image"]
    assert small.shape == (1, 6, 40, 3)
    for edge, in_small in (((-0.5, -0.5, 0), (-0.5, -0.5, 0)), ((11.5, 19.5, 2), (5.5, 39.5, 2))):
        np.testing.assert_allclose(oblique @ [*edge, 1], small.affine.numpy() @ [*in_small, 1], atol=1e-6)


def test_a_prediction_comes_back_on_the_images_grid(oblique):
    x, y = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    blob = ((x - 17) ** 2 + (y - 31) ** 2 < 100).float()[None, :, :, None].repeat(1, 1, 1, 2)
    image = MetaTensor(blob, affine=torch.tensor(np.diag([-1.0, 1, 1, 1]) @ oblique))
    chain = Compose([Orientationd("image", "RAS", labels=None), ResizeSlicesd("image", (32, 32))])
    item = chain({"image": image})
    item["pred"] = MetaTensor(item["image"].as_tensor().clone(), meta=dict(item["image"].meta))
    back = Invertd("pred", chain, "image", nearest_interp=False, to_tensor=True)(item)["pred"]
    assert back.shape == image.shape
    np.testing.assert_allclose(back.affine.numpy(), image.affine.numpy(), atol=1e-5)
    assert ((back > 0.5) != (blob > 0.5)).float().mean() < 0.01


@pytest.mark.parametrize("rows", [1, 6, 20])
def test_planes_of_one_column_or_row(rows):
    """What varies along one axis only has one column as it has each of several."""
    ramp = torch.arange(12.0)[None, :, None, None].expand(2, 12, 9, 3)
    one_of_several = resize_planes(ramp, (rows, 4))[:, :, :1]
    torch.testing.assert_close(resize_planes(ramp, (rows, 1)), one_of_several)
    torch.testing.assert_close(resize_planes(ramp.transpose(1, 2), (1, rows)), one_of_several.transpose(1, 2))
