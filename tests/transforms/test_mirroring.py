# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Mirrored slices are slices of the mirrored volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.transforms import RandSlicesd, SlicesWithContentd, cut_slice
from segan_monai.transforms.mirroring import each_mirror_axis, mirror_slices, mirrored_views

VIEWS = mirrored_views([0, 1, 2])


@pytest.mark.parametrize("neighbours", [0, 1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("mirrored", VIEWS)
def test_as_cut_from_the_mirrored_volume(mirrored, axis, neighbours):
    volume = torch.rand(2, 4, 5, 6)
    turned = volume.flip([1 + mirror for mirror in mirrored])
    depth = volume.shape[1 + axis]
    size = [n for index, n in enumerate(volume.shape[1:]) if index != axis]
    for index in range(depth):
        there = depth - 1 - index if axis in mirrored else index
        expected = cut_slice(turned, axis, there, (0, 0), size, neighbours)
        found = mirror_slices(cut_slice(volume, axis, index, (0, 0), size, neighbours), mirrored, axis, neighbours)
        assert torch.equal(found, expected)


def test_all_combinations():
    assert VIEWS == [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert mirrored_views([]) == [()]


@pytest.mark.parametrize("axes", [[3], [-1], [0, 0], ["0"], 3])
def test_wrong_axes(axes):
    with pytest.raises(ConfigError, match=r"mirror_axes is .*; expected a list of different axes out of 0 \(left-righ"):
        each_mirror_axis(axes)


def test_a_photograph_has_two_axes():
    assert each_mirror_axis([1, 0], dimensions=2) == (0, 1)
    with pytest.raises(ConfigError, match=r"mirror_axes is \[2\]; .* out of 0 \(left-right\) and 1 \(up-down\)\."):
        each_mirror_axis([2], dimensions=2)


def draw(volume, **settings):
    """Slices by a fixed seed; the label is the image again."""
    axis = settings.get("axis", 2)
    data = SlicesWithContentd(["image", "label"], axis)({"image": volume, "label": volume.clone()})
    transform = RandSlicesd(["image", "label"], "label", num_samples=64, roi_size=(8, 8), **settings)
    transform.set_random_state(0)
    return transform(data)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("mirror_axes", [[0], [1], [2], [0, 1]])
def test_training_slices_are_mirrored_along_each_axis_by_a_coin(mirror_axes, axis):
    volume = torch.rand(1, 3, 4, 5)
    slices = [cut_slice(volume, axis, index, (0, 0), (8, 8), 1) for index in range(volume.shape[1 + axis])]
    seen = dict.fromkeys(mirrored_views(mirror_axes), 0)
    for sample in draw(volume, axis=axis, neighbours=1, mirror_axes=mirror_axes):
        (view,) = (
            view
            for view in seen
            for image in slices
            if torch.equal(sample["image"], mirror_slices(image, view, axis, 1))
        )
        assert torch.equal(sample["label"], sample["image"][1:2]), "image and label alike"
        seen[view] += 1
    assert sum(seen.values()) == 64
    assert min(seen.values()) >= 64 / len(seen) / 2


def test_without_axes_no_further_random_number_is_drawn():
    volume = torch.rand(1, 3, 4, 5)
    data = SlicesWithContentd("image")({"image": volume})
    plain, none = (RandSlicesd("image", "image", 4, (2, 2), **more) for more in ({}, {"mirror_axes": []}))
    for transform in (plain, none):
        transform.set_random_state(3)
        transform.randomize(data)
    by_hand = np.random.RandomState(3)
    for _ in range(4):  # foreground or not, the slice, the window
        by_hand.random()
        by_hand.choice(5)
        by_hand.randint(0, 2)
        by_hand.randint(0, 3)
    assert plain.R.random() == none.R.random() == by_hand.random()
