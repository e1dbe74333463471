# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss

from segan_monai.errors import ConfigError
from segan_monai.losses import ExclusiveClassLoss, loss_of_known_pixels


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, 4, requires_grad=True), (torch.rand(2, 3, 4, 4) > 0.5).float()


def test_dice_equals_that_of_maps_multiplied_by_the_mask(batch):
    logits, target = batch
    known = (torch.rand(2, 3, 4, 4) > 0.4).float()
    ours = loss_of_known_pixels(DiceLoss(sigmoid=True, squared_pred=True, batch=True), logits, target, known)
    masked = DiceLoss(squared_pred=True, batch=True)(logits.sigmoid() * known, target * known)
    assert ours.item() == pytest.approx(masked.item(), rel=1e-5)
    ours.backward()
    assert (logits.grad[known == 0] == 0).all()
    assert (logits.grad[known == 1] != 0).all()


def test_cross_entropy_is_the_mean_over_known_pixels(batch):
    logits, target = batch
    known = torch.zeros(2, 3, 4, 4)
    known[0, :, :1] = 1  # the same number in each class
    ours = loss_of_known_pixels(torch.nn.BCEWithLogitsLoss(), logits, target, known)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[0, :, :1], target[0, :, :1])
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "loss", [DiceLoss(sigmoid=True, batch=True), torch.nn.BCEWithLogitsLoss(), DiceCELoss(sigmoid=True, batch=True)]
)
def test_with_every_pixel_known_it_is_the_loss_itself(batch, loss):
    logits, target = batch
    ours = loss_of_known_pixels(loss, logits, target, torch.ones_like(target))
    assert ours.item() == pytest.approx(loss(logits, target).item(), rel=1e-5)


def test_a_class_that_is_nowhere_known_has_no_part(batch):
    logits, target = batch
    known = torch.ones(2, 3, 4, 4)
    known[:, 1] = 0
    loss = DiceLoss(sigmoid=True, batch=True)
    ours = loss_of_known_pixels(loss, logits, target, known)
    assert ours.item() == pytest.approx(loss(logits[:, [0, 2]], target[:, [0, 2]]).item(), rel=1e-5)


def test_without_known_pixels_there_is_no_loss(batch):
    logits, target = batch
    ours = loss_of_known_pixels(DiceLoss(sigmoid=True, batch=True), logits, target, torch.zeros_like(target))
    ours.backward()
    assert ours.item() == 0
    assert (logits.grad == 0).all()


def test_exclusive_classes_use_pixels_known_in_all_regions():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 1, 4)
    target = torch.tensor([[[[1.0, 0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0, 0.0]]]])
    known = torch.tensor([[[[1.0, 1.0, 0.0, 1.0]], [[1.0, 1.0, 1.0, 0.0]]]])
    loss = ExclusiveClassLoss({"a": [1], "b": [2]}, torch.nn.CrossEntropyLoss())
    ours = loss_of_known_pixels(loss, logits, target, known)
    expected = torch.nn.functional.cross_entropy(logits[0, :, 0, :2].T, torch.tensor([1, 2]))
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_loss_per_image_is_refused(batch):
    with pytest.raises(
        ConfigError, match=r"DiceLoss is computed per image \(batch false\).* Set batch of supervised_l"
    ):
        loss_of_known_pixels(DiceLoss(sigmoid=True), *batch, torch.ones(2, 3, 4, 4))
