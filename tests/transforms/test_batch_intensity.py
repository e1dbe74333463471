# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Intensity changes of whole batches, against MONAI's of single images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import (
    AdjustContrast,
    Compose,
    RandAdjustContrast,
    RandAdjustContrastd,
    RandGaussianNoise,
    RandGaussianNoised,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandScaleIntensityd,
    RandSimulateLowResolution,
)

from segan_monai.errors import ConfigError
from segan_monai.transforms import EachModalityd
from segan_monai.transforms.batch_intensity import (
    BatchIntensity,
    adjust_contrast,
    map_by_curves,
    simulate_low_resolution,
)
from segan_monai.transforms.rand_contrast import RandContrastCurve, RandContrastCurved, map_intensities

STEPS = {
    "noise": lambda prob: RandGaussianNoise(prob, std=0.2),
    "low resolution": lambda prob: RandSimulateLowResolution(prob, upsample_mode="bilinear", zoom_range=(0.5, 1.0)),
    "contrast": lambda prob: RandAdjustContrast(prob, gamma=(0.7, 1.5)),
    "scale": lambda prob: RandScaleIntensity(0.3, prob),
    "curve": RandContrastCurve,
}


def images(count=5, channels=3, size=(20, 30)):
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(0))


def changed_in_batch(step, image, modalities=1):
    return BatchIntensity(EachModalityd("image", modalities, step))({"image": image})["image"]


def test_contrast_is_that_of_monai():
    gamma = torch.tensor([0.7, 1.0, 1.5, 2.0, 0.9])
    found = adjust_contrast(images(), gamma)
    for one, image, value in zip(found, images(), gamma.tolist(), strict=True):
        torch.testing.assert_close(one, AdjustContrast(value)(image).as_tensor(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(31, 37), (127, 53), (1, 4)])
def test_low_resolution_is_that_of_monai(size):
    """With primes, of which no pixel's place is a whole number, which rounding would decide."""
    zoom = torch.cat([torch.linspace(0.5, 1, 24), torch.tensor([0.01])])
    found = simulate_low_resolution(images(len(zoom), size=size), zoom)
    step = RandSimulateLowResolution(1.0, upsample_mode="bilinear")
    step._do_transform = True
    for one, image, value in zip(found, images(len(zoom), size=size), zoom.tolist(), strict=True):
        step.zoom_factor = value
        torch.testing.assert_close(one, step(image, randomize=False).as_tensor(), atol=1e-4, rtol=0)


def test_a_curve_is_that_of_the_loader():
    image = images(5, 2)
    image[:, :, :6] = 0  # background
    image[3] = 0
    image[4] = image[4].sign() * 0.5
    levels = torch.rand(5, 4, generator=torch.Generator().manual_seed(1))
    found = map_by_curves(image, levels)
    assert torch.equal(found[3:], image[3:]), "no intensity or one has no curve"
    assert not found[:, :, :6].any()
    for one, before, curve in zip(found, image, levels.tolist(), strict=True):
        torch.testing.assert_close(one, map_intensities(before, curve), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("transform", "largest"),
    [
        (RandScaleIntensityd("image", factors=0.3, prob=0.5), 0.31),
        (RandGaussianNoised("image", prob=0.5, std=0.02), 0.2),
        (RandAdjustContrastd("image", prob=0.5, gamma=(0.5, 1.5)), 1.0),
        (RandContrastCurved("image", prob=0.5), 2.0),
    ],
)
def test_dictionary_versions_change_all_channels_with_their_probability(transform, largest):
    torch.manual_seed(0)
    image = images(400, 2, (6, 6))
    change = (BatchIntensity(transform)({"image": image})["image"] - image).abs()
    assert change.max() < largest
    changed = change.mean((2, 3)) > 1e-6
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert changed.float().mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", STEPS)
def test_probability_0_changes_nothing(name):
    assert torch.equal(changed_in_batch(STEPS[name](0.0), images()), images())


@pytest.mark.parametrize("name", STEPS)
def test_changes_have_the_distribution_of_the_loader(name):
    """Share of changed images, mean and standard deviation of the mean absolute change of 600 images."""
    torch.manual_seed(0)
    image = images(1, 1, (16, 16))
    step = STEPS[name](0.5).set_random_state(0)
    found = changed_in_batch(step, image.expand(600, 1, 16, 16))
    of_batch = (found - image).abs().mean((1, 2, 3)).numpy()
    of_loader = np.array([(torch.as_tensor(step(image[0])) - image[0]).abs().mean().item() for _ in range(600)])
    assert (of_batch > 0).mean() == pytest.approx((of_loader > 0).mean(), abs=0.08)
    assert of_batch.mean() == pytest.approx(of_loader.mean(), rel=0.15)
    assert of_batch.std() == pytest.approx(of_loader.std(), rel=0.15)


def test_neighbouring_slices_change_alike_and_modalities_by_themselves():
    torch.manual_seed(0)
    image = images(20, 2).repeat(1, 3, 1, 1)  # two modalities in three equal slices
    ratio = changed_in_batch(RandScaleIntensity(0.3, 1.0), image, modalities=2) / image
    factors = ratio.mean((2, 3))
    torch.testing.assert_close(ratio, factors[..., None, None].expand_as(ratio))
    torch.testing.assert_close(factors, factors[:, :2].repeat(1, 3))
    assert len({round(value, 4) for value in factors[:, :2].flatten().tolist()}) == 40
    assert 0.7 <= factors.min() < 0.8
    assert 1.2 < factors.max() <= 1.3


def test_steps_follow_each_other_and_other_keys_stay():
    torch.manual_seed(0)
    steps = Compose([RandScaleIntensity((1, 1), 1.0), RandScaleIntensity((2, 2), 1.0)])
    batch = {"image": images(), "label": images()}
    found = BatchIntensity(EachModalityd("image", 3, steps))(batch)
    torch.testing.assert_close(found["image"], 6 * images())
    assert found["label"] is batch["label"]


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (RandGaussianSmooth(prob=0.1), "RandGaussianSmooth cannot"),
        (RandAdjustContrast(0.1, retain_stats=True), "RandAdjustContrast with retain_stats True cannot"),
        (RandScaleIntensity(0.3, 0.1, channel_wise=True), "RandScaleIntensity with channel_wise True cannot"),
        (RandSimulateLowResolution(0.1), "RandSimulateLowResolution with upsample_mode trilinear cannot"),
    ],
)
def test_other_transforms_are_refused(step, named):
    with pytest.raises(ConfigError, match=rf"{named} change whole batches.*Set augment_on_device to false"):
        BatchIntensity(EachModalityd("image", 1, step))


def test_a_wrong_number_of_channels_is_named():
    with pytest.raises(ConfigError, match=r"'image' has 3 channels, expected a multiple of the 2 modalities"):
        changed_in_batch(RandScaleIntensity(0.3, 0.0), images(), modalities=2)
