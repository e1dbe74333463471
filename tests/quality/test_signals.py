# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from segan_monai.quality.signals import image_features, largest_part, outline_entropy, region_signals, soft_dice


def test_soft_dice_of_an_empty_mask_depends_on_what_was_considered():
    sure, unsure = torch.zeros(4, 4, 4), torch.full((4, 4, 4), 0.4)
    assert soft_dice(sure, sure > 0.5) == 1
    assert soft_dice(unsure, unsure > 0.5) == pytest.approx(1 / (64 * 0.4 + 1))


def test_outline_entropy_is_of_the_band_alone():
    probability = torch.zeros(9, 9)
    probability[3:6, 3:6] = 0.75
    probability[4, 4] = 0.999  # the centre is inside of the band
    band = (-0.75 * math.log2(0.75) - 0.25 * math.log2(0.25)) * 8 / 24  # 8 voxels inside, 16 of 0 outside
    assert outline_entropy(probability, probability > 0.5) == pytest.approx(band, abs=1e-4)
    assert outline_entropy(torch.zeros(3, 3), torch.zeros(3, 3, dtype=torch.bool)) == 0
    assert outline_entropy(torch.full((3, 3), 0.5), torch.zeros(3, 3, dtype=torch.bool)) == pytest.approx(1)


def test_largest_part_is_a_share_of_voxels():
    mask = np.zeros((5, 5), bool)
    mask[0, :3] = mask[4, 4] = True
    assert largest_part(mask) == 0.75
    assert largest_part(np.zeros((5, 5), bool)) == 1


def test_signals_of_each_region():
    probabilities = torch.zeros(2, 6, 6, 6)
    probabilities[0, 1:4, 1:4, 1:4] = 1
    found = region_signals(probabilities, ["a", "b"], {"axes": [0.9, 0.4]}, voxel_ml=0.1)
    assert found["a"]["log_ml"] == pytest.approx(math.log(0.1 + 2.7))
    assert found["b"]["log_ml"] == pytest.approx(math.log(0.1))
    assert found["a"]["soft_dice"] == found["b"]["soft_dice"] == 1
    assert [found[name]["agreement_axes"] for name in "ab"] == [0.9, 0.4]


def test_masks_of_a_softmax_are_where_a_class_is_the_most_probable():
    probabilities = torch.zeros(3, 4, 4, 4)  # background, a, b
    probabilities[0] = 1
    probabilities[:, 0, 0, 0] = torch.tensor([0.3, 0.45, 0.25])  # a, though below a half
    probabilities[:, 0, 0, 3] = torch.tensor([0.1, 0.3, 0.6])
    found = region_signals(probabilities, ["a", "b"], {}, voxel_ml=1)
    assert [found[name]["log_ml"] for name in "ab"] == pytest.approx([math.log(1.1)] * 2)
    assert found["a"]["soft_dice"] == pytest.approx((2 * 0.45 + 1) / (0.45 + 0.3 + 1 + 1))
    assert found["b"]["soft_dice"] == pytest.approx((2 * 0.6 + 1) / (0.25 + 0.6 + 1 + 1))
    with pytest.raises(ValueError, match="have 3 channels; expected one of each of 1 regions"):
        region_signals(probabilities, ["a"], {})


def test_image_features_see_noise_and_extent_but_not_the_background():
    values = torch.zeros(1, 20, 10, 8)
    values[:, 2:12, 1:9, 2:6] = torch.linspace(0.1, 1, 10)[:, None, None]
    padded = torch.nn.functional.pad(values, (3, 3, 3, 3, 3, 3))
    found = image_features(values, ["T1"])
    assert image_features(padded, ["T1"]) == pytest.approx(found)
    assert [found[f"extent {axis}"] for axis in range(3)] == pytest.approx([math.log(n) for n in (10, 8, 4)])
    assert found["T1 0.5"] == pytest.approx(0.5, abs=0.11)
    noisy = values + 0.1 * torch.randn(values.shape, generator=torch.Generator().manual_seed(0)) * (values != 0)
    assert image_features(noisy, ["T1"])["T1 step"] > found["T1 step"] + 0.5


def test_an_image_of_one_value_is_far_from_every_other():
    ramp = torch.linspace(0.3, 0.7, 10_000).reshape(1, 100, 100)  # the smoothest that has a range
    assert (
        image_features(torch.full((1, 100, 100), 0.5), ["grey"])["grey step"]
        < image_features(ramp, ["grey"])["grey step"] - 3
    )


def test_an_empty_image_has_features():
    assert all(map(math.isfinite, image_features(torch.zeros(2, 4, 4, 4), ["a", "b"]).values()))
