# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Deformation of whole batches, against MONAI's of single slices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.transforms import Identityd, OneOf, Rand2DElasticd, RandAffined, RandFlipd, RandZoomd

from segan_monai.errors import ConfigError
from segan_monai.transforms.batch_deformation import (
    BatchDeformation,
    affine_matrices,
    affine_points,
    control_points,
    elastic_points,
    moved,
    resample,
)

KEYS = ["image", "label", "mask"]
MODES = {"mode": ["bilinear", "nearest", "nearest"], "padding_mode": "zeros", "allow_missing_keys": True}
RANGES = {"rotate_range": 0.35, "shear_range": [0.1, 0.1], "translate_range": [4, 6], "scale_range": [0.2, 0.2]}


def affine(prob=1.0, **ranges):
    return RandAffined(KEYS, prob=prob, **MODES, **ranges)


def elastic(magnitude=(0.0, 5.0), **ranges):
    return Rand2DElasticd(KEYS, spacing=(8, 10), magnitude_range=magnitude, prob=1.0, **MODES, **ranges)


def make_batch(count=4, channels=3, size=(32, 40)):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(count, channels, *size, generator=generator)
    label = (torch.rand(count, 2, *size, generator=generator) > 0.5).float()
    return {"image": image, "label": label, "mask": torch.ones_like(label)}


def numbers(values, count):
    return torch.tensor([values] * count, dtype=torch.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(32, 40), (31, 17)])
def test_an_affine_change_is_that_of_monai(seed, size):
    image = make_batch(1, size=size)["image"]
    transform = affine(**RANGES).set_random_state(seed)
    expected = transform({"image": image[0]})["image"].as_tensor()
    matrices = transform.rand_affine.rand_affine_grid.get_transformation_matrix().float()[None]
    found = resample(image, affine_points(matrices, size), "bilinear")[0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(32, 40), (33, 27)])
def test_an_elastic_change_is_that_of_monai(seed, size):
    image = make_batch(1, size=size)["image"]
    transform = elastic(**RANGES).set_random_state(seed)
    expected = transform({"image": image[0]})["image"].as_tensor()
    drawn, offsets = transform.rand_2d_elastic.rand_affine_grid, transform.rand_2d_elastic.deform_grid
    parameters = (drawn.shear_params, drawn.translate_params, drawn.scale_params)
    matrices = affine_matrices(torch.tensor(drawn.rotate_params).float(), *(numbers(p, 1) for p in parameters))
    displaced = control_points(size, (8, 10)) + torch.tensor(offsets.rand_mag * offsets.random_offset)[None]
    points = elastic_points(moved(displaced.float(), matrices), size, (8, 10))
    torch.testing.assert_close(resample(image, points, "bilinear")[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("transform", [affine(0.0, **RANGES), OneOf([affine(), Identityd(KEYS)], [0, 1])])
def test_probability_0_changes_nothing(transform):
    batch = make_batch()
    changed = BatchDeformation(transform)(batch)
    assert all(torch.equal(changed[key], batch[key]) for key in KEYS)


def test_a_quarter_turn_is_exact_for_image_and_label():
    batch = make_batch(size=(32, 32))
    changed = BatchDeformation(affine(rotate_range=[(math.pi / 2, math.pi / 2)]))(batch)
    assert torch.equal(changed["label"], batch["label"].rot90(-1, (2, 3)))
    torch.testing.assert_close(changed["image"], batch["image"].rot90(-1, (2, 3)), atol=1e-4, rtol=0)


def test_a_forced_flip_is_exact():
    batch = make_batch()
    changed = BatchDeformation(affine(scale_range=[(-2, -2), (0, 0)]))(batch)  # MONAI adds 1: rows are mirrored
    assert torch.equal(changed["label"], batch["label"].flip(2))
    torch.testing.assert_close(changed["image"], batch["image"].flip(2), atol=1e-4, rtol=0)


def test_pixels_from_outside_are_0_and_unknown():
    batch = make_batch()
    changed = BatchDeformation(affine(translate_range=[(5, 5), (0, 0)]))(batch)
    for key in KEYS:
        torch.testing.assert_close(changed[key][:, :, :27], batch[key][:, :, 5:], atol=1e-4, rtol=0)
        assert not changed[key][:, :, 27:].any()


@pytest.mark.parametrize("transform", [affine(**RANGES), elastic(**RANGES)])
def test_each_slice_moves_by_itself_and_its_channels_and_label_together(transform):
    torch.manual_seed(0)
    label = torch.zeros(6, 1, 32, 40)
    label[:, :, 8:24, 10:30] = 1
    batch = {"image": label.repeat(1, 9, 1, 1), "label": label}
    changed = BatchDeformation(transform)(batch)
    image, moved_label = changed["image"], changed["label"]
    assert torch.equal(image, image[:, :1].expand_as(image)), "neighbouring slices and modalities"
    assert ((image[:, :1] > 0.5) == (moved_label > 0)).float().mean() > 0.98
    assert set(moved_label.unique().tolist()) == {0.0, 1.0}
    assert len({tuple(map(tuple, one.nonzero().tolist())) for one in moved_label}) == 6
    assert torch.equal(batch["label"], label), "the input stays"


def test_a_given_share_of_slices_is_deformed_by_each_transform():
    """With shares .2 and .3; standard errors of 1000 slices are .013 and .014."""
    torch.manual_seed(0)
    shift = [affine(translate_range=[(value, value), (0, 0)]) for value in (1, 2)]
    image = torch.arange(1.0, 7)[:, None].expand(1000, 1, 6, 4)
    changed = BatchDeformation(OneOf([*shift, Identityd(KEYS)], [0.2, 0.3, 0.5]))({"image": image})["image"]
    first = changed[:, 0, 0, 0].round()
    for value, share in ((1, 0.5), (2, 0.2), (3, 0.3)):
        assert (first == value).float().mean().item() == pytest.approx(share, abs=0.05)


def test_angles_shifts_and_scales_have_the_distribution_of_the_loader():
    """Where one pixel of 2000 slices comes from: mean and standard deviation of its row and column."""
    rows = torch.arange(16.0)[:, None].expand(16, 16)
    ramp = torch.stack([rows, rows.T])
    transform = affine(**{**RANGES, "translate_range": [1, 2]}).set_random_state(0)
    corner = (slice(None), slice(5, 6), slice(11, 12))  # inside whatever the deformation
    of_loader = np.stack([transform({"image": ramp})["image"][corner].flatten().numpy() for _ in range(2000)])
    torch.manual_seed(0)
    batch = BatchDeformation(transform)({"image": ramp.expand(2000, 2, 16, 16)})["image"]
    of_batch = batch[:, :, 5, 11].numpy()
    np.testing.assert_allclose(of_batch.mean(0), of_loader.mean(0), atol=0.1)
    np.testing.assert_allclose(of_batch.std(0), of_loader.std(0), rtol=0.06)


def test_elastic_displacements_have_the_distribution_of_the_loader():
    rows = torch.arange(32.0)[:, None].expand(32, 32)
    ramp = torch.stack([rows, rows.T])
    transform = elastic((0.0, 2.0)).set_random_state(0)
    of_loader = np.stack([transform({"image": ramp})["image"][:, 15, 17].numpy() for _ in range(400)])
    torch.manual_seed(0)
    of_batch = BatchDeformation(transform)({"image": ramp.expand(2000, 2, 32, 32)})["image"][:, :, 15, 17].numpy()
    np.testing.assert_allclose(of_batch.mean(0), of_loader.mean(0), atol=0.2)
    np.testing.assert_allclose(of_batch.std(0), of_loader.std(0), rtol=0.15)


def test_the_seed_decides():
    deform = BatchDeformation(elastic(**RANGES))
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(deform(make_batch())["image"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    "transform",
    [
        RandFlipd(KEYS, prob=0.5),
        OneOf([RandZoomd(KEYS, prob=1.0), Identityd(KEYS)]),
        RandAffined(KEYS, prob=1.0, spatial_size=(8, 8)),
    ],
)
def test_other_transforms_are_refused(transform):
    with pytest.raises(ConfigError, match=r"cannot deform whole batches.*Set augment_on_device to false"):
        BatchDeformation(transform)
