# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from monai.data import MetaTensor

from segan_monai.transforms import ScaleForegroundd, scale_foreground


def test_percentiles_of_the_foreground_become_0_and_1():
    image = torch.tensor([[0.0, 0, 10, 20, 30, 40, 50]])
    # The 25th and 75th percentile of 10..50 are 20 and 40.
    scaled = scale_foreground(image, lower=25, upper=75)
    torch.testing.assert_close(scaled, torch.tensor([[0.0, 0, 0, 0, 0.5, 1, 1]]))


def test_more_background_changes_nothing():
    torch.manual_seed(0)
    brain = torch.rand(2, 8, 8) + 1
    padded = torch.nn.functional.pad(brain, [20, 20, 20, 20])
    assert torch.equal(scale_foreground(padded)[:, 20:-20, 20:-20], scale_foreground(brain))


def test_units_of_the_scanner_do_not_matter():
    torch.manual_seed(0)
    image = torch.rand(1, 16, 16) + 0.1
    torch.testing.assert_close(scale_foreground(image * 1.7e6), scale_foreground(image))


def test_channels_are_scaled_apart():
    image = torch.stack([torch.linspace(1, 2, 100), torch.linspace(100, 5000, 100)])
    scaled = scale_foreground(image, 0, 100)
    torch.testing.assert_close(scaled[0], scaled[1])


def test_empty_and_constant_channels_stay_finite():
    assert scale_foreground(torch.zeros(1, 4)).tolist() == [[0, 0, 0, 0]]
    assert scale_foreground(torch.tensor([[0.0, 7, 7, 0]])).tolist() == [[0, 1, 1, 0]]


def test_dictionary_version_keeps_the_metadata_and_the_input():
    affine = torch.diag(torch.tensor([2.0, 2, 2, 1], dtype=torch.float64))
    image = MetaTensor(torch.arange(8.0).reshape(1, 2, 2, 2), affine=affine, meta={"filename_or_obj": "case.nii.gz"})
    before = image.clone()
    scaled = ScaleForegroundd("image")({"image": image})["image"]
    assert torch.equal(scaled.affine, affine)
    assert scaled.meta["filename_or_obj"] == "case.nii.gz"
    assert torch.equal(image, before)
    assert scaled.max() == 1
