# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from segan_monai.quality_critic import stack_of


def test_content_is_cropped_and_averaged():
    image = torch.zeros(1, 80, 80, 40)
    image[0, 20:48, 30:58, 10:20] = 1  # with the margin of 2, a box of 32 x 32 x 14
    mask = torch.zeros(2, 80, 80, 40)
    mask[0, 20:22, 30:32, 10] = 1
    stack = stack_of(image, [mask], 16)
    assert stack.image.shape == (14, 1, 16, 16)
    assert stack.masks[0].shape == (14, 2, 16, 16)
    assert float(stack.image.sum()) == pytest.approx(28 * 28 * 10 / 4), "four voxels become one"
    assert stack.masks[0][2, 0, 1, 1] == 1
    assert float(stack.masks[0].sum()) == 1
    assert stack.voxel_ml == pytest.approx(0.004)


def test_a_mask_outside_the_content_is_kept():
    image, mask = torch.zeros(1, 40, 40, 10), torch.zeros(1, 40, 40, 10)
    image[0, 5, 5, 5] = mask[0, 35, 35, 5] = 1
    assert float(stack_of(image, [mask], 16).masks[0].sum()) > 0


def test_many_slices_are_averaged():
    stack = stack_of(torch.ones(1, 16, 16, 96), [torch.ones(1, 16, 16, 96)], 16)
    assert stack.image.shape == (48, 1, 16, 16)
    assert stack.voxel_ml == pytest.approx(0.002)


def test_labels_do_not_change_what_the_critic_sees():
    image, mask = torch.zeros(1, 40, 40, 10), torch.zeros(1, 40, 40, 10)
    image[0, 10:30, 10:30, 2:8] = mask[0, 12:20, 12:20, 4] = 1
    alone = stack_of(image, [mask], 16)
    with_label = stack_of(image, [mask, torch.ones_like(mask)], 16)
    assert torch.equal(alone.image, with_label.image)
    assert torch.equal(alone.masks[0], with_label.masks[0])


def test_masks_are_brought_to_the_grid_of_the_image():
    """The mask's first axis points to the left, and the image's to the right."""
    image = MetaTensor(torch.ones(1, 16, 16, 4), affine=torch.eye(4))
    flipped = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    flipped[0, 3] = 15
    mask = MetaTensor(torch.zeros(1, 16, 16, 4, dtype=torch.uint8), affine=flipped)
    mask[0, :4] = 1
    found = stack_of(image, [mask], 16).masks[0]
    assert found[0, 0, :, 0].tolist() == [0.0] * 12 + [1.0] * 4
