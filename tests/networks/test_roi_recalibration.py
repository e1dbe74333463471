# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Affines of RoIs against numbers computed by hand, round trips of masks, and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate, one_hot

from segan_monai.networks import box_edges, crop_affine, inverse_affine, merge_rois, roi_affine, sample_affine
from segan_monai.networks.roi_recalibration import resample, samples_per_pixel

DOUBLE = torch.float64


def tensors(*rows, dtype=torch.float32):
    return (torch.tensor([row], dtype=dtype) for row in rows)


def test_edges_of_a_box():
    (keypoint, distances) = tensors([10.0, 20.0], [1.0, 2.0, 3.0, 4.0])
    assert box_edges(keypoint, distances).tolist() == [[9, 17, 12, 24]]


def test_affine_by_hand():
    # W 100, H 50: the box with margin 5 is x 20 to 60 and y 10 to 35; its corners in [-1, 1]: x -.6 to .2, y -.6 to .4
    keypoint, distances = tensors([35.0, 20.0], [10.0, 20.0, 5.0, 10.0])
    theta = roi_affine(keypoint, distances, (50, 100), margin=5)
    torch.testing.assert_close(theta[0], torch.tensor([[0.4, 0, -0.2], [0, 0.5, -0.1]]))
    corners = theta[0] @ torch.tensor([[-1.0, 1], [-1, 1], [1, 1]])
    torch.testing.assert_close(corners, torch.tensor([[-0.6, 0.2], [-0.6, 0.4]]))


def test_the_whole_image_is_the_identity():
    keypoint, distances = tensors([30.0, 20.0], [15.0, 35.0, 5.0, 5.0])
    theta = roi_affine(keypoint, distances, (40, 80), margin=15)
    torch.testing.assert_close(theta[0], torch.tensor([[1.0, 0, 0], [0, 1, -0.0]]))
    image = torch.rand(1, 2, 40, 80)
    torch.testing.assert_close(sample_affine(image, theta), image)


def test_the_first_pixels_of_a_roi_are_those_of_the_image():
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    keypoint, distances = tensors([4.0, 3.0], [2.0, 2.0, 2.0, 2.0])  # 4x4 pixels, doubled: samples at quarters
    sampled = sample_affine(image, roi_affine(keypoint, distances, (8, 8), margin=0))
    # the first sample is at x 2.25, y 1.25: a quarter pixel left of the centre of column 2 and above that of row 1
    assert sampled[0, 0, 0, 0].item() == pytest.approx(8 * 0.75 + 1.75)


@pytest.mark.parametrize("side", [10, 40, 150, 400])
@pytest.mark.parametrize("place", ["centre", "corner"])
def test_there_and_back_reproduces_a_mask(side, place):
    y, x = torch.meshgrid(torch.arange(512.0) + 0.5, torch.arange(512.0) + 0.5, indexing="ij")
    centre = 256.0 if place == "centre" else side / 2
    mask = (((x - centre).abs() / (side / 2)) ** 2 + ((y - centre).abs() / (side / 2)) ** 2 <= 1).float()[None, None]
    keypoint, distances = tensors(
        [centre + 2, centre - 1.3], [side / 2 + 2, side / 2 - 2, side / 2 - 1, side / 2 + 1.0]
    )
    theta = roi_affine(keypoint, distances, (512, 512))
    inside = sample_affine(mask, theta)
    assert inside.mean() > 0.04, "the object fills the RoI"
    back = sample_affine(inside, inverse_affine(theta)) > 0.5
    dice = 2 * (back & (mask > 0)).sum() / (back.sum() + mask.sum())
    assert dice > 0.98


def test_inverse_times_affine_is_the_identity():
    keypoint, distances = tensors([70.0, 20.0], [10.0, 20.0, 5.0, 1.0], dtype=DOUBLE)
    theta = roi_affine(keypoint, distances, (64, 96))
    last = torch.tensor([[[0, 0, 1]]], dtype=DOUBLE)
    product = torch.cat([inverse_affine(theta, smooth=0), last], 1) @ torch.cat([theta, last], 1)
    torch.testing.assert_close(product[0], torch.eye(3, dtype=DOUBLE))
    nothing = roi_affine(keypoint, distances * 0, (64, 96), margin=0)
    assert torch.isfinite(inverse_affine(nothing)).all()


def test_a_hard_crop_is_rounded_outwards_and_clipped():
    keypoints = torch.tensor([[10.5, 20.2], [1.0, 1.0], [500.0, 20.0]])
    distances = torch.tensor([[3.2, 4.1, 2.1, 3.9], [5.0, 5, 5, 5], [1.0, 1, 1, 1]]).requires_grad_()
    theta = crop_affine(keypoints, distances, (64, 128), margin=2)
    assert not theta.requires_grad
    edges = torch.stack([(theta[:, 0, 2] - theta[:, 0, 0] + 1) * 64, (theta[:, 0, 2] + theta[:, 0, 0] + 1) * 64], 1)
    torch.testing.assert_close(edges, torch.tensor([[5.0, 17], [0, 8], [127, 128]]))
    rows = torch.stack([(theta[:, 1, 2] - theta[:, 1, 1] + 1) * 32, (theta[:, 1, 2] + theta[:, 1, 1] + 1) * 32], 1)
    torch.testing.assert_close(rows, torch.tensor([[16.0, 27], [0, 8], [17, 23]]))


def test_several_rois_are_merged_by_their_maximum():
    placed = torch.tensor([[[0.2, 0.9]], [[0.7, 0.1]], [[0.5, 0.5]]])
    merged = merge_rois(placed, torch.tensor([2, 2, 0]), 4)
    torch.testing.assert_close(merged, torch.tensor([[[0.5, 0.5]], [[0, 0]], [[0.7, 0.9]], [[0, 0]]]))
    assert merge_rois(placed[:0], torch.zeros(0, dtype=torch.long), 2).tolist() == [[[0, 0]], [[0, 0]]]


def test_gradients_reach_keypoint_and_all_four_distances():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 12, 16, generator=generator, dtype=DOUBLE)
    keypoint, distances = tensors([7.3, 5.1], [3.1, 2.2, 1.7, 3.3], dtype=DOUBLE)
    inputs = (keypoint.requires_grad_(), distances.requires_grad_())

    def through(keypoint, distances):
        theta = roi_affine(keypoint, distances, (12, 16), margin=1.0)
        return sample_affine(sample_affine(image, theta), inverse_affine(theta))

    assert torch.autograd.gradcheck(through, inputs, eps=1e-7, atol=1e-5)
    through(*inputs).square().sum().backward()
    assert (distances.grad.abs() > 1e-3).all()
    assert (keypoint.grad.abs() > 1e-3).all()


def test_mixed_precision_does_not_move_the_grid():
    image = one_hot(torch.arange(300), 300).float()[None, None]
    keypoint, distances = tensors([150.0, 150.0], [150.0, 150.0, 150.0, 150.0])
    theta = roi_affine(keypoint, distances, (300, 300), margin=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(sample_affine(image, theta), image, atol=1e-4, rtol=0)


def test_beyond_the_border_there_is_nothing():
    keypoint, distances = tensors([0.0, 0.0], [4.0, 4.0, 4.0, 4.0])
    sampled = sample_affine(torch.ones(1, 1, 8, 8), roi_affine(keypoint, distances, (8, 8), margin=0))
    assert sampled[0, 0, :3].sum() == 0
    assert (sampled[0, 0, 5:, 5:] == 1).all()


def box_of(x0, y0, x1, y1):
    keypoint, distances = tensors([x0 + 3.0, y0 + 2.0], [3.0, x1 - x0 - 3.0, 2.0, y1 - y0 - 2.0])
    return roi_affine(keypoint, distances, (96, 128), margin=0)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_box_of_a_multiple_of_the_result_is_its_crop_averaged_over_areas(factor):
    image = torch.rand(1, 2, 96, 128)
    x0, y0 = 5, 11
    theta = box_of(x0, y0, x0 + 20 * factor, y0 + 16 * factor)
    found = sample_affine(image, theta, [16, 20], [factor, factor])
    crop = image[..., y0 : y0 + 16 * factor, x0 : x0 + 20 * factor]
    torch.testing.assert_close(found, avg_pool2d(crop, factor), atol=1e-5, rtol=1e-5)


def test_a_small_box_is_its_crop_enlarged():
    image = torch.rand(1, 1, 96, 128)
    # a crop one pixel larger on every side, so that the border of the crop does not count
    crop = interpolate(image[..., 29:51, 39:71], scale_factor=3, mode="bilinear", align_corners=False)
    found = sample_affine(image, box_of(40, 30, 70, 50), [60, 90])
    torch.testing.assert_close(found, crop[..., 3:-3, 3:-3], atol=1e-5, rtol=1e-5)


def test_detail_that_does_not_fit_is_averaged_and_not_subsampled():
    stripes = torch.zeros(1, 1, 96, 128)
    stripes[..., ::2] = 1
    theta = box_of(0, 0, 128, 96)
    samples = samples_per_pixel([96, 128], [24, 32])
    assert samples == [4, 4]
    torch.testing.assert_close(sample_affine(stripes, theta, [24, 32], samples), torch.full((1, 1, 24, 32), 0.5))
    assert sample_affine(stripes, box_of(0.5, 0, 128.5, 96), [24, 32])[..., 1:-1].unique().tolist() != [0.5]


def test_resampling_keeps_the_edges_of_an_image():
    image = torch.rand(2, 1, 12, 20)
    torch.testing.assert_close(resample(image, [6, 5])[0, 0, 0, 0], image[0, 0, :2, :4].mean())
    assert resample(image, [12, 20]) is image
