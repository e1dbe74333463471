# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.data.conventions import LABEL_CONVENTIONS
from segan_monai.networks.exclusive import class_to_region_logits, exclusive_classes, regions_to_classes
from segan_monai.transforms.regions import label_to_regions

OVERLAPPING = {"left": [1, 2], "right": [2, 3]}


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ({"anterior": [1], "posterior": [2]}, [[1, 0], [0, 1]]),
        ({"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}, [[1, 1, 1], [1, 1, 0], [1, 0, 0]]),
        # necrosis (1) and non-enhancing core (3) lie in the same regions: one class
        ({"whole": [1, 2, 3, 4], "core": [1, 3, 4], "enhancing": [4]}, [[1, 1, 1], [1, 1, 0], [1, 0, 0]]),
        (OVERLAPPING, [[1, 1], [1, 0], [0, 1]]),
        ({"lesion": [255]}, [[1]]),
    ],
)
def test_classes_of_regions(regions, expected):
    assert exclusive_classes(regions).int().tolist() == expected


@pytest.mark.parametrize("regions", [OVERLAPPING, *(c.regions for c in LABEL_CONVENTIONS.values())])
def test_there_and_back(regions):
    values = [0, *sorted({value for of_region in regions.values() for value in of_region})]
    label = torch.tensor(values * 2, dtype=torch.uint8).reshape(1, 2, -1)
    maps = label_to_regions(label, regions)[None].float()
    classes = exclusive_classes(regions)
    one_hot = regions_to_classes(maps, classes)
    assert one_hot.shape == (1, 1 + len(classes), 2, len(values))
    assert torch.equal(one_hot.sum(1), torch.ones(1, 2, len(values)))
    assert torch.equal(one_hot[:, 0] == 1, label == 0)
    back = class_to_region_logits(100 * one_hot, classes)
    assert torch.equal((back > 0).float(), maps)


def test_a_regions_probability_is_the_sum_over_its_classes():
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().reshape(1, 4, 1, 1) + 7  # a shift changes no softmax
    probabilities = class_to_region_logits(logits, exclusive_classes(OVERLAPPING)).sigmoid()
    torch.testing.assert_close(probabilities, torch.tensor([0.5, 0.6]).reshape(1, 2, 1, 1))


def test_logits_far_apart_stay_finite():
    logits = torch.tensor([0.0, 500.0]).reshape(1, 2, 1, 1)
    assert class_to_region_logits(logits, exclusive_classes({"lesion": [1]})).flatten().tolist() == [500.0]
