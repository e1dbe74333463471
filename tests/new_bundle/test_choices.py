# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest

from segan_monai.errors import ConfigError, DataError
from segan_monai.new_bundle import choose
from tests.new_bundle.fingerprints import HIPPOCAMPUS, alike

CT = replace(HIPPOCAMPUS, is_ct=True, channels=["CT"], shape=alike(512, 512, 90), content=alike(400, 300, 90))


def chosen(method="segan", base=HIPPOCAMPUS, **changes):
    return {key: choice.value for key, choice in choose(method, replace(base, **changes)).items()}


def test_small_isotropic_crops():
    assert chosen() == {
        "skull_stripped": True,
        "slice_axis": [2, 1, 0],
        "neighbours": 3,
        "slice_size": [48, 48],  # of 36, 36 and 51 voxels the middle one
        "patch_size": [48, 64, 48],
        "patches_per_volume": 1,
        "base_channels": 16,
        "full_resolution_channels": 8,
        "augmentation_probability": 0.6,
        "learning_rate": 0.01,
        "slices_per_volume": 8,
        "batch_size": 32,  # an eighth of the 256 slices of 32 cases
        "epochs": 250,  # 2000 steps of 8 an epoch
        "val_interval": 12,
        "folds": 5,
        "cache_rate": 1.0,
        "num_workers": 0,
    }


@pytest.mark.parametrize(("noise", "stripped"), [(0.0, True), (0.05, True), (0.3, False)])
def test_noise_in_the_background_is_no_skull_stripped_brain(noise, stripped):
    assert chosen(noise=noise)["skull_stripped"] is stripped
    assert "skull_stripped" not in chosen(base=CT, noise=noise, intensities=[[-100, 50, 20, 240]])


@pytest.mark.parametrize(("spacing", "axis"), [((3, 1, 1), 0), ((1, 1.5, 1), 1), ((2, 3, 3), 2)])
def test_slices_are_cut_across_the_longest_side_of_voxels(spacing, axis):
    assert chosen(spacing=alike(*spacing))["slice_axis"] == axis


@pytest.mark.parametrize(
    ("changes", "axis", "size"),
    [
        ({"content": alike(40, 53, 42)}, [2, 1, 0], [48, 48]),
        ({"content": alike(90, 96, 70)}, [2, 1, 0], [96, 96]),
        ({"content": alike(20, 97, 20)}, 2, [32, 112]),  # too large
        ({"spacing": alike(1, 1, 1.49)}, [2, 1, 0], [48, 48]),
        ({"spacing": alike(1, 1.4, 1.5)}, 2, [48, 64]),  # not alike
    ],
)
def test_small_volumes_of_like_voxels_are_seen_along_all_axes(changes, axis, size):
    found = chosen(**changes)
    assert (found["slice_axis"], found["slice_size"]) == (axis, size)
    assert found.get("neighbours", 0) == (3 if axis == [2, 1, 0] else 0)


def test_patches_hold_small_volumes_and_have_at_most_a_million_voxels():
    keys = ("patch_size", "patches_per_volume")
    assert [chosen(content=alike(36, 51, 10))[key] for key in keys] == [[48, 64, 16], 1]
    found = [chosen(content=alike(140, 175, 130))[key] for key in keys]
    assert found == [[96, 96, 112], 2]
    assert 96 * 96 * 112 <= 2**20 < 112 * 96 * 112


def test_planes_are_those_of_the_axis():
    assert chosen(spacing=alike(3, 1, 1), content=alike(20, 100, 70))["slice_size"] == [112, 80]


@pytest.mark.parametrize(
    ("content", "size", "width", "rate", "batch"),
    [
        ((10, 20), [32, 32], 16, 0.01, 32),
        ((120, 128), [128, 128], 32, 0.001, 32),
        ((150, 160), [160, 160], 64, 0.001, 32),
        ((400, 300), [256, 256], 64, 0.001, 24),  # 25 slices of 256x256 have as many pixels as 64 of 160x160
    ],
)
def test_the_network_grows_with_the_slices(content, size, width, rate, batch):
    found = chosen(content=alike(*content, 36))
    assert [found[key] for key in ("slice_size", "base_channels", "learning_rate", "batch_size")] == [
        size,
        width,
        rate,
        batch,
    ]


def test_large_planes_are_said_to_be_windows():
    assert (
        "planes are cropped at random"
        in choose("segan", replace(CT, intensities=[[0, 50, 9, 400]]))["slice_size"].reason
    )


@pytest.mark.parametrize(("cases", "folds"), [(2, 2), (5, 2), (6, 3), (9, 4), (10, 5), (500, 5)])
def test_folds_of_few_subjects(cases, folds):
    assert chosen(cases=cases, subjects=cases)["folds"] == folds


def test_epochs_are_bounded():
    assert chosen(cases=2, subjects=2)["epochs"] == 500
    assert chosen(cases=5000, subjects=5000)["epochs"] == 40


def test_a_large_set_is_cached_in_part():
    found = chosen(gigabytes=64.0)
    assert (found["cache_rate"], found["num_workers"]) == (0.25, 4)


def test_spacing_is_made_alike_only_where_it_is_mixed():
    assert "spacing_mm" not in chosen(spacing=[[1, 1, 1.4], [1, 1, 1.4], [2, 2, 3]])
    found = chosen(spacing=[[0.5, 1, 2], [0.5, 1, 2], [2, 2, 2]], content=alike(30, 50, 20))
    assert found["spacing_mm"] == [1, 1, 2]
    assert found["slice_size"] == [32, 64]


@pytest.mark.parametrize(
    ("percentiles", "window"),
    [((-96, 215), [-100, 220]), ((90, 169), [-30, 280]), ((100, 100), [-50, 250]), ((-1000, -300.5), [-1000, -300])],
)
def test_the_window_of_a_ct(percentiles, window):
    intensities = [[percentiles[0], 0, 0, percentiles[1]]]
    assert chosen(base=CT, intensities=intensities)["intensity_window"] == window
    assert chosen("lsnet", CT, intensities=intensities)["hu_window"] == window


def test_lsnet():
    found = chosen("lsnet", CT)
    assert (found["slice_size"], found["base_channels"], found["max_rois"]) == ([512, 512], 64, 6)
    found = chosen("lsnet", HIPPOCAMPUS, objects=1)
    assert (found["slice_size"], found["base_channels"], found["max_rois"]) == ([64, 64], 16, 4)
    assert "hu_window" not in found


def test_adversarial_normalization():
    found = chosen("adversarial-normalization", domains={"a": 30, "b": 6, "c": 4}, spacing=alike(1, 1, 2))
    assert (found["first_domain"], found["second_domain"], found["folds"]) == ("a", "b", 2)
    assert (found["spacing_mm"], found["patch_size"]) == ([1, 1, 2], [32, 32, 32])
    assert found["pad_small_images"] is True  # 29 mm are 14.5 voxels of 2 mm
    assert found["zero_is_background"] is False
    large = chosen(
        "adversarial-normalization",
        domains={"a": 20, "b": 20},
        smallest=[100, 100, 100],
        shape=alike(150, 150, 20),
        zeros=0.6,
    )
    assert (large["pad_small_images"], large["zero_is_background"], large["patch_size"]) == (False, True, [32, 32, 16])


def test_the_schedule_of_domains_is_for_the_folds_that_are_written():
    found = choose("adversarial-normalization", replace(HIPPOCAMPUS, domains={"a": 30, "b": 7, "c": 3}))
    # two folds within each domain: 15 + 4 + 2 = 21 of 40 cases are held out, 19 are trained on, 2 cases per step
    assert found["folds"].value == 2
    assert found["folds"].reason == (
        "of the 3 cases of the smallest domain, c, each fold trains on 1 or 2 and holds out 1 or 2; about 21 cases are "
        "held out"
    )
    assert found["batch_size"].reason == "152 samples from 19 cases per epoch; 10 steps per epoch"
    assert (found["epochs"].value, found["val_interval"].value) == (200, 10)  # 2000 steps of 10 per epoch


def test_a_domain_of_two_cases_trains_on_one_of_them():
    found = choose("adversarial-normalization", replace(HIPPOCAMPUS, domains={"a": 38, "b": 2}))
    assert found["folds"].reason == (
        "of the 2 cases of the smallest domain, b, each fold trains on 1 and holds out 1; about 20 cases are held out"
    )


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ({}, r"two domains \(scanners, protocols, sites\); found none. Add a field"),
        ({"a": 40}, r"found only a\."),
        (
            {"a": 39, "b": 1},
            r"the domains of 40 cases have a 39, b 1. Expected a domain for every case, and at least two",
        ),
        ({"a": 20, "b": 10}, r"the domains of 40 cases have a 20, b 10"),
    ],
)
def test_domains_that_are_not_enough(domains, message):
    with pytest.raises(DataError, match=message):
        chosen("adversarial-normalization", domains=domains)


def test_methods():
    with pytest.raises(
        ConfigError, match=r"unknown method 'unet', expected one of segan, adversarial-normalization, lsnet"
    ):
        chosen("unet")
    for method in ("lsnet", "adversarial-normalization"):
        with pytest.raises(
            ConfigError, match=rf"--method {method} takes images of one channel, and these have 2 \(T1, T2\)"
        ):
            chosen(method, channels=["T1", "T2"])
