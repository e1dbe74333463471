# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segan_monai.pictures.live_slice import LiveSlice

RAS = np.diag([1.0, 2.0, 3.0, 1.0])


def case(image, label, prediction=None, affine=RAS, classes=1, axis=2, **output):
    batch = {"case": "x", "image": MetaTensor(image, affine=torch.tensor(affine)), "label": label}
    return LiveSlice.of_case(batch, {"pred": label if prediction is None else prediction, **output}, classes, axis)


def volume(shape=(1, 6, 5, 4)):
    return 1 + torch.arange(float(np.prod(shape))).reshape(shape)


def test_the_slice_with_the_largest_reference_area_of_all_regions():
    label = torch.zeros(2, 6, 5, 4)
    label[0, 2, 2, 1] = label[1, :3, 0, 2] = 1
    cut = case(volume(), label, label * 0, classes=2)
    assert torch.equal(cut.image, volume()[..., 2])
    assert cut.label.sum() == 3
    assert cut.dice == 0
    assert torch.equal(case(volume(), label * 0).image, volume()[..., 2]), "the middle one where there is no reference"
    assert torch.equal(case(volume(), label, classes=2, axis=0).image, volume()[:, 2])


def test_a_map_of_classes_is_one_mask_a_class():
    label = torch.zeros(1, 6, 5, 4)
    label[0, :, 0, 3], label[0, :2, 1, 3] = 2, 3
    cut = case(volume(), label, classes=3, normalized=volume() / 2)
    assert cut.label.sum((1, 2)).tolist() == [0, 6, 2]
    assert torch.equal(cut.normalized, volume()[..., 3] / 2)
    assert cut.dice == 1


@pytest.mark.parametrize(("axis", "plane", "aspect"), [(2, (0, 1), 2.0), (1, (0, 2), 3.0), (0, (1, 2), 1.5)])
def test_on_the_screen_axes_run_to_right_anterior_superior_however_the_volume_is_stored(axis, plane, aspect):
    label = torch.ones(1, 6, 5, 4)
    upright = case(volume(), label, axis=axis)
    assert upright.aspect == pytest.approx(aspect)
    expected = upright.to_screen(upright.image)
    assert expected.shape[1:] == tuple(volume().shape[1 + dim] for dim in plane)
    # the same voxels stored from superior to inferior, anterior to posterior, with the axes in another order
    order = [2, 0, 1]
    stored = volume().flip(2, 3).permute(0, *(1 + dim for dim in order))
    flip = np.diag([1.0, -2.0, -3.0, 1.0])
    affine = flip[:, [*order, 3]]
    turned = case(stored, label.permute(0, *(1 + dim for dim in order)), affine=affine, axis=order.index(axis))
    assert turned.aspect == pytest.approx(aspect)
    first = case(volume().flip(2, 3), label, affine=flip, axis=axis)
    np.testing.assert_array_equal(turned.to_screen(turned.image), first.to_screen(first.image))


def test_planes_are_cut_to_the_content_of_the_image():
    image = torch.zeros(1, 40, 30, 2)
    image[0, 10:20, 12, 0] = 1
    label = torch.zeros(1, 40, 30, 2)
    label[0, 10, 12, 0] = 1
    cut = case(image, label)
    assert cut.to_screen(cut.image).shape == (1, 18, 9)  # 4 more on each side
    assert cut.shown.reference[0].shape == (18, 9, 1)
    assert cut.shown.reference[0][4, 4, 0]
    assert cut.shown.reference[0].sum() == 1


def test_a_photograph_stays_as_it_is_in_its_own_proportions():
    image = torch.rand(3, 8, 6)
    label = torch.zeros(1, 8, 6)
    label[0, :4] = 1
    cut = case(image, label, affine=np.diag([-2.0, -5.0, 1.0, 1.0]))
    assert cut.axis is None
    assert cut.aspect == 2.5
    np.testing.assert_array_equal(cut.to_screen(cut.image), image.numpy())
    assert cut.shown.image.shape == (8, 6, 3)
    assert cut.dice == 1


def test_the_stack_is_the_slice_between_its_neighbours():
    image = torch.arange(1.0, 6).expand(1, 4, 3, 5).clone()
    label = torch.zeros(1, 4, 3, 5)
    label[0, 1, 1, 4] = 1
    cut = LiveSlice.of_case({"case": "x", "image": image, "label": label}, {"pred": label}, 1, axis=2, neighbours=2)
    assert cut.image[:, 0, 0].tolist() == [5]
    assert cut.stack.shape == (5, 4, 3)
    assert cut.stack[:, 0, 0].tolist() == [3, 4, 5, 0, 0]
