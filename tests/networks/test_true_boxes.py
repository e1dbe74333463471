# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Training RoIs around true objects."""

from __future__ import annotations

import torch

from segan_monai.networks import RoIs
from segan_monai.networks.roi_recalibration import mirrored_affine, roi_affine, sample_affine
from segan_monai.networks.true_boxes import boxes_of_objects, mean_box_iou, of_whole_objects, with_true_boxes


def predicted(count):
    distances = torch.ones(count, 4, requires_grad=True)
    index = torch.arange(count)
    return RoIs(index, index * 0, torch.full((count, 2), 7.0), distances, torch.full((count,), 0.3))


def label():
    masks = torch.zeros(3, 2, 40, 60)
    masks[0, 1, 10:20, 30:50] = 1
    masks[2, 0, 4:8, 2:8] = 1
    return masks


def test_boxes_of_true_objects_and_their_class():
    rois = with_true_boxes(predicted(3), boxes_of_objects(label()), share=1.0, jitter=0.0)
    assert rois.edges().tolist() == [[30, 10, 50, 20], [6, 6, 8, 8], [2, 4, 8, 8]], "no object, so the predicted box"
    assert (rois.image.tolist(), rois.channel.tolist()) == ([0, 1, 2], [1, 0, 0])
    torch.testing.assert_close(rois.scores, torch.tensor([1.0, 0.3, 1.0]))


def test_only_predicted_boxes_have_a_gradient():
    rois = predicted(3)
    with_true_boxes(rois, boxes_of_objects(label()), share=1.0, jitter=0.0).distances.sum().backward()
    assert rois.distances.grad.sum(1).tolist() == [0, 4, 0]


def test_the_share_and_the_jitter():
    torch.manual_seed(0)
    masks = label()[:1].expand(400, -1, -1, -1)
    found = with_true_boxes(predicted(400), boxes_of_objects(masks), share=0.25, jitter=0.1)
    true = found.edges()[found.scores == 1]
    assert 70 < len(true) < 130
    # 20 wide and 10 high: edges move by 2 and 1 pixels
    spread = true.std(0)
    torch.testing.assert_close(spread, torch.tensor([2.0, 1, 2, 1]), rtol=0.25, atol=0)
    torch.testing.assert_close(true.mean(0), torch.tensor([30.0, 10, 50, 20]), rtol=0, atol=0.6)
    assert with_true_boxes(predicted(2), boxes_of_objects(masks[:2]), share=0.0, jitter=0.1).scores.max() < 1


def test_a_mirrored_affine_gives_the_mirrored_roi():
    image = torch.rand(2, 1, 20, 30)
    theta = roi_affine(torch.tensor([[9.0, 8.0]] * 2), torch.tensor([[4.0, 3.0, 2.0, 5.0]] * 2), [20, 30], margin=0.0)
    plain, mirrored = (
        sample_affine(image, theta),
        sample_affine(image, mirrored_affine(theta, torch.tensor([True, False]))),
    )
    torch.testing.assert_close(mirrored[0], plain[0].flip(2), atol=1e-5, rtol=1e-5)
    assert torch.equal(mirrored[1], plain[1])


def test_the_mean_iou_of_boxes():
    edges = torch.tensor([[30.0, 10, 40, 20], [0.0, 0, 5, 5], [2.0, 4, 8, 12]])
    sides = torch.stack([edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1]], 1) / 2
    rois = RoIs(
        torch.arange(3),
        torch.tensor([1, 0, 0]),
        edges[:, :2] + sides,
        sides.repeat_interleave(2, dim=1),
        torch.ones(3),
    )
    # half of the first box, nothing in the second image, and half of the third
    assert mean_box_iou(rois, boxes_of_objects(label())).item() == 0.5
    assert mean_box_iou(predicted(3), boxes_of_objects(torch.zeros(3, 2, 40, 60))).isnan()


def test_objects_that_touch_unknown_pixels_have_no_known_box():
    """Row 0: an object beside an unknown pixel; row 2: one that is away from it. Class 1 is known everywhere."""
    masks = torch.zeros(1, 2, 3, 7)
    masks[0, :, 0, :3], masks[0, :, 2, :2] = 1, 1
    masks[0, 0, 0, 3] = 1  # below the unknown pixel, of which nothing is known
    known = torch.ones(1, 2, 3, 7, dtype=torch.uint8)
    known[0, 0, 0, 3] = 0
    whole, seen = of_whole_objects(masks, known)
    assert whole[0, 0].tolist() == [[0] * 7, [0] * 7, [1, 1, 0, 0, 0, 0, 0]]
    assert seen[0, 0].tolist() == [[0, 0, 0, 0, 1, 1, 1], [1] * 7, [1] * 7]
    assert torch.equal(whole[0, 1], masks[0, 1])
    assert seen[0, 1].all()
    assert masks[0, 0, 0, 0] == known[0, 0, 0, 0] == 1, "the given ones stay as they are"


def test_background_in_the_box_of_a_cut_object_is_hidden_and_another_object_in_it_is_not():
    """The visible part of an object is an angle that ends at an unknown pixel; a whole object lies in the angle."""
    masks, known = torch.zeros(1, 1, 4, 5), torch.ones(1, 1, 4, 5)
    masks[0, 0, :3, 0] = masks[0, 0, 2, :3] = masks[0, 0, 0, 2] = 1
    known[0, 0, 2, 3] = 0
    whole, seen = of_whole_objects(masks, known)
    assert whole[0, 0].tolist() == [[0, 0, 1, 0, 0], [0] * 5, [0] * 5, [0] * 5]
    assert seen[0, 0].tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [1] * 5]
