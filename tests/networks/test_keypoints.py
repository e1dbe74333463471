# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Targets of localization networks against numbers computed by hand, and peaks of heatmaps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from segan_monai.networks.keypoints import (
    component_peaks,
    heatmap_peaks,
    keypoint_targets,
    object_boxes,
    smallest_sigma,
)


def label_with(*boxes, size=(32, 48)):
    label = torch.zeros(1, 1, *size)
    for x0, y0, x1, y1 in boxes:
        label[0, 0, y0:y1, x0:x1] = 1
    return label


def test_boxes_of_objects():
    label = label_with((0, 0, 3, 2), (40, 30, 48, 32))[0, 0].numpy()
    assert object_boxes(label).tolist() == [[0, 0, 3, 2], [40, 30, 48, 32]]
    assert object_boxes(np.eye(5)).tolist() == [[0, 0, 5, 5]], "pixels that share a corner are of one object"
    assert object_boxes(np.zeros((4, 4))).shape == (0, 4)


def test_heat_and_distances_by_hand():
    # box x 12 to 24, y 4 to 16: centre (18, 10), which position (row 2, column 4) of a grid of stride 4 stands for
    heat, distances = keypoint_targets(label_with((12, 4, 24, 16)), stride=4, sigma=3.0)
    assert heat.shape == (1, 1, 8, 12)
    assert distances.shape == (1, 1, 4, 8, 12)
    assert heat[0, 0, 2, 4] == 1
    assert heat[0, 0, 2, 5].item() == pytest.approx(math.exp(-16 / 18))
    assert heat[0, 0, 1, 3].item() == pytest.approx(math.exp(-32 / 18))
    assert distances[0, 0, :, 2, 4].tolist() == [6, 6, 6, 6]
    assert distances[0, 0, :, 1, 5].tolist() == [10, 2, 2, 10], "position x 22, y 6"
    assert distances[0, 0, :, 0, 0].tolist() == [-10, 22, -2, 14], "negative beyond an edge"


def test_objects_at_the_border():
    heat, distances = keypoint_targets(label_with((44, 28, 48, 32)), stride=4, sigma=3.0)
    assert heat[0, 0, 7, 11] == 1
    assert distances[0, 0, :, 7, 11].tolist() == [2, 2, 2, 2]
    heat, _ = keypoint_targets(torch.ones(1, 1, 30, 46), stride=4, sigma=3.0)
    assert heat.shape == (1, 1, 8, 12), "sides that are no multiples of the stride"


def test_of_two_objects_the_nearer_one_gives_heat_and_box():
    heat, distances = keypoint_targets(label_with((0, 0, 4, 4), (8, 0, 40, 4)), stride=4, sigma=3.0)
    assert heat[0, 0, 0, 0] == 1
    assert distances[0, 0, :, 0, 0].tolist() == [2, 2, 2, 2]
    assert distances[0, 0, :, 0, 6].tolist() == [18, 14, 2, 2]


def test_classes_and_empty_slices_are_apart():
    label = torch.cat([label_with((4, 4, 8, 8)), label_with()], dim=1)
    label = torch.cat([label, torch.zeros_like(label)])
    heat, distances = keypoint_targets(label, stride=4, sigma=3.0)
    assert heat.flatten(2).amax(2).tolist() == [[1, 0], [0, 0]]
    assert distances[0, 1].abs().sum() == distances[1].abs().sum() == 0


def test_every_object_however_small_has_a_position_above_one_half():
    sigma = smallest_sigma(4) + 1e-4
    for offset in range(4):  # centres at any place within a cell, the worst at its corner
        label = torch.zeros(1, 1, 32, 32)
        label[0, 0, 8 + offset, 12 + offset] = 1
        assert keypoint_targets(label, 4, sigma)[0].max() > 0.5
    worst = torch.zeros(1, 1, 32, 32)
    worst[0, 0, 7:9, 7:9] = 1  # centre (8, 8), between four positions
    assert keypoint_targets(worst, 4, sigma)[0].max() > 0.5
    assert keypoint_targets(worst, 4, sigma * 0.99)[0].max() < 0.5


def test_peaks_are_components_and_lie_on_them():
    heat = np.zeros((8, 8))
    heat[1:4, 1:4] = 0.6
    heat[2, 3] = 0.9
    heat[6, 6] = 0.5
    assert heatmap_peaks(heat, 0.5, most=8) == [(0.9, 2, 2), (0.5, 6, 6)]
    assert heatmap_peaks(heat, 0.5, most=1) == [(0.9, 2, 2)]
    assert heatmap_peaks(heat, 0.95, most=8) == []
    bent = np.zeros((5, 5))
    bent[0, :] = bent[:, 0] = 1
    ((_, row, column),) = heatmap_peaks(bent, 0.5, most=8)
    assert bent[row, column] == 1, "the centre of the L is not on it"


@pytest.mark.parametrize("seed", range(8))
def test_peaks_in_tensor_operations_are_the_same(seed):
    generator = np.random.default_rng(seed)
    heat = ndimage.gaussian_filter(generator.random((2, 2, 31, 44)), (0, 0, 0.4 + seed / 4, 1)).astype(np.float32)
    heat = (heat - heat.min()) / (heat.max() - heat.min())
    heat[1, 1] = 0
    scores, rows, columns = component_peaks(torch.from_numpy(heat), 0.5, 3)
    for image, channel in np.ndindex(2, 2):
        found = zip(*(part[image, channel].tolist() for part in (scores, rows, columns)), strict=True)
        assert [peak for peak in found if peak[0] > 0] == heatmap_peaks(heat[image, channel], 0.5, 3)


def test_a_component_that_winds_through_the_heatmap_is_one():
    heat = torch.zeros(1, 1, 64, 64)
    heat[0, 0, ::2] = 0.9
    heat[0, 0, 1::4, -1] = heat[0, 0, 3::4, 0] = 0.8
    scores, _, _ = component_peaks(heat, 0.5, 2)
    assert scores.flatten().tolist() == pytest.approx([0.9, 0])


def test_boxes_of_a_label_of_another_size_keep_their_precision():
    label = torch.zeros(1, 1, 128, 64)
    label[0, 0, 30:61, 17:34] = 1  # at 32x32: y 7.5 to 15.25, x 8.5 to 17
    heat, distances = keypoint_targets(label, 4, 4.0, size=(32, 32))
    assert heat.shape == (1, 1, 8, 8)
    assert distances[0, 0, :, 2, 3].tolist() == [14 - 8.5, 17 - 14, 10 - 7.5, 15.25 - 10]
