# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.transforms import RandStrongChange


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(40, 2, 16, 20) * 3 + 5


def test_contrast_keeps_the_mean_and_scales_the_deviation(images):
    changed = RandStrongChange(contrast=0.5, brightness=0, noise=0, erased=0)(images)
    torch.testing.assert_close(changed.mean(dim=(2, 3)), images.mean(dim=(2, 3)))
    ratio = changed.std(dim=(2, 3)) / images.std(dim=(2, 3))
    assert 0.5 <= ratio.min() < 0.7
    assert 1.3 < ratio.max() <= 1.5


def test_brightness_shifts_by_standard_deviations(images):
    changed = RandStrongChange(contrast=0, brightness=0.5, noise=0, erased=0)(images)
    shift = (changed - images) / images.std(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(shift, shift[..., :1, :1].expand_as(shift), atol=1e-4, rtol=0)
    assert 0.3 < shift.max() <= 0.5001
    assert -0.5001 <= shift.min() < -0.3


def test_noise_is_relative_to_the_deviation(images):
    changed = RandStrongChange(contrast=0, brightness=0, noise=0.2, erased=0)(images)
    ratio = (changed - images).std(dim=(2, 3)) / images.std(dim=(2, 3))
    assert 0 < ratio.min() < 0.05
    assert 0.15 < ratio.max() < 0.25


def test_one_rectangle_per_image_is_erased_in_all_channels(images):
    changed = RandStrongChange(contrast=0, brightness=0, noise=0, erased=0.5)(images)
    erased = changed != images
    assert torch.equal(erased[:, 0], erased[:, 1])
    for mask in erased[:, 0]:
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert torch.equal(mask, rows[:, None] & columns[None])
        assert rows.sum() <= 9
        assert columns.sum() <= 11
    assert erased.any()


def test_the_images_stay_and_the_global_generator_decides(images):
    before = images.clone()
    change = RandStrongChange()
    torch.manual_seed(5)
    first = change(images)
    torch.manual_seed(5)
    assert torch.equal(first, change(images))
    assert not torch.equal(first, change(images))
    assert torch.equal(images, before)


def test_slices_of_a_modality_change_alike(images):
    neighbours = torch.cat([images, images * 2 + 1, images[:, :1], images[:, 1:] - 3], dim=1)  # 3 slices, 2 modalities
    change = RandStrongChange(noise=0, erased=0, modalities=2)
    slices = change(neighbours).unflatten(1, (3, 2))
    first, second = slices[:, 0], slices[:, 1]
    # one linear map per modality: what holds of two slices before holds after, but for the shift
    torch.testing.assert_close((second - first).std(dim=(2, 3)), (first.std(dim=(2, 3))), rtol=1e-4, atol=0)
    torch.testing.assert_close(slices[:, 2, 0], first[:, 0])
    ratio = first.std(dim=(2, 3)) / images.std(dim=(2, 3))
    assert (ratio[:, 0] - ratio[:, 1]).abs().max() > 0.1  # and each modality has its own


def test_channels_that_are_no_multiple_of_the_modalities(images):
    with pytest.raises(ConfigError, match="strong change: images have 2 channels, no multiple of 3"):
        RandStrongChange(modalities=3)(images)


@pytest.mark.parametrize("settings", [{"noise": -0.1}, {"contrast": 1.5}, {"erased": 2}])
def test_bad_settings(settings):
    with pytest.raises(
        ConfigError, match=r"strong change: contrast .*; expected 0 or more, and contrast and erased at"
    ):
        RandStrongChange(**settings)
