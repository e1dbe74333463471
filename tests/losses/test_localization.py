# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""DIoU against numbers computed by hand, and the loss of a localization network."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceFocalLoss

from segan_monai.errors import ConfigError
from segan_monai.losses import CoarseSegmentationLoss, LocalizationLoss, distance_iou
from segan_monai.networks.keypoints import keypoint_targets


def map_loss():
    return DiceFocalLoss(sigmoid=True, squared_pred=True, batch=True, lambda_dice=0.2)


def one_object():
    label = torch.zeros(2, 1, 32, 32)
    label[0, 0, 8:20, 4:12] = 1
    return label


def test_diou_by_hand():
    same = torch.tensor([[3.0, 4, 5, 6]])
    assert distance_iou(same, same).item() == pytest.approx(0)
    # x -1 to 1 and 1 to 3 (touching), y -1 to 1: IoU 0, centres 2 apart, around both 4 x 2
    apart = distance_iou(torch.tensor([1.0, 1, 1, 1]), torch.tensor([-1.0, 3, 1, 1]))
    assert apart.item() == pytest.approx(1 + 4 / 20)
    # within: 2x2 in 4x4, centres alike
    assert distance_iou(torch.tensor([1.0, 1, 1, 1]), torch.tensor([2.0, 2, 2, 2])).item() == pytest.approx(0.75)


def test_diou_pulls_every_edge():
    found = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64, requires_grad=True)
    true = torch.tensor([2.0, 1, 4, 2], dtype=torch.float64)
    distance_iou(found, true).backward()
    assert (found.grad.abs() > 1e-3).all()
    assert torch.autograd.gradcheck(distance_iou, (found, true))


def test_the_true_maps_are_better_than_others_and_boxes_count_near_keypoints_only():
    label = one_object()
    heat, distances = keypoint_targets(label, 4, 4.0)
    loss = LocalizationLoss(map_loss(), sigma=4.0)
    best = loss((torch.logit(heat, eps=1e-4), distances), label)
    assert best["box"].item() == pytest.approx(0, abs=1e-6)
    moved = loss((torch.logit(heat.roll(3, -1), eps=1e-4), distances + 1), label)
    assert moved["heatmap"] > best["heatmap"] + 0.05
    assert moved["box"] > 0.05
    far = torch.where((heat > 0.5).unsqueeze(2), distances, 1000.0)
    assert loss((heat, far), label)["box"].item() == pytest.approx(0, abs=1e-6)


def test_the_box_term_is_the_mean_over_positions_above_one_half():
    label = one_object()
    heat, true = keypoint_targets(label, 4, 4.0)
    found = torch.full_like(true, 5.0).requires_grad_()
    term = LocalizationLoss(map_loss(), sigma=4.0)((heat, found), label)["box"]
    near = [(row, column) for row in range(8) for column in range(8) if heat[0, 0, row, column] > 0.5]
    assert len(near) > 1
    expected = [distance_iou(found[0, 0, :, r, c], true[0, 0, :, r, c]) for r, c in near]
    assert term.item() == pytest.approx(torch.stack(expected).mean().item())


def test_without_objects_boxes_have_no_gradient_but_a_graph():
    found = torch.ones(2, 1, 4, 8, 8, requires_grad=True)
    terms = LocalizationLoss(map_loss(), sigma=4.0)((torch.zeros(2, 1, 8, 8), found), torch.zeros(2, 1, 32, 32))
    assert terms["box"].item() == 0
    terms["box"].backward()
    assert found.grad.abs().sum() == 0
    assert torch.isfinite(terms["heatmap"])


def test_a_sigma_that_loses_objects_is_refused():
    with pytest.raises(ConfigError, match=r"sigma is 2 pixels; expected at least 2\.4"):
        LocalizationLoss(map_loss(), sigma=2.0)


def test_the_coarse_loss_is_that_of_its_mask():
    logits = torch.randn(2, 1, 8, 8)
    label = (logits > 0).float()
    assert CoarseSegmentationLoss(map_loss())(logits, label)["coarse_mask"] == map_loss()(logits, label)


def test_a_coarse_mask_is_compared_at_its_own_size():
    label = torch.zeros(1, 1, 32, 64)
    label[..., 8:18, 16:32] = 1  # at 8x16: rows 2 to 4.5
    logits = torch.full((1, 1, 8, 16), -20.0)
    logits[..., 2:4, 4:8] = 20.0
    seen = []
    CoarseSegmentationLoss(lambda logits, target: seen.append(target) or logits.sum())(logits, label)
    assert torch.equal(seen[0], (logits > 0).float())


def test_unknown_pixels_count_neither_as_heat_nor_as_boxes():
    """Of the second image, only the left half is known, so its loss is that of this half."""
    label = one_object()
    label[1, 0, 8:20, 20:28] = 1  # in the unknown half
    known = torch.ones_like(label)
    known[1, :, :, 16:] = 0
    logits = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    distances = torch.full((2, 1, 4, 8, 8), 5.0)
    loss = LocalizationLoss(torch.nn.BCEWithLogitsLoss(), sigma=4.0)
    terms = loss((logits, distances), label, known)
    heat, _ = keypoint_targets(label, 4, 4.0)
    masks = torch.nn.functional.avg_pool2d(label, 4)
    for name, found, target, weight in (("heatmap", logits[:, :1], heat, 1), ("coarse_mask", logits[:, 1:], masks, 5)):
        each = torch.nn.functional.binary_cross_entropy_with_logits(found, target, reduction="none")
        expected = (each[0].sum() + each[1, :, :, :4].sum()) / (64 + 32)
        assert terms[name].item() == pytest.approx(weight * expected.item(), rel=1e-5), name
    alone = loss((logits[:1], distances[:1]), label[:1])
    assert terms["box"].item() == pytest.approx(alone["box"].item(), rel=1e-5)
    assert terms["box"] > 0


def test_the_coarse_loss_is_that_of_known_pixels():
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    label, known = torch.zeros(2, 1, 32, 32), torch.zeros(2, 1, 32, 32)
    label[0, :, :8], known[0] = 1, 1
    found = CoarseSegmentationLoss(map_loss())(logits, label, known)["coarse_mask"]
    alone = CoarseSegmentationLoss(map_loss())(logits[:1], label[:1])["coarse_mask"]
    assert found.item() == pytest.approx(alone.item(), rel=1e-5)
