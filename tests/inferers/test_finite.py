# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Every inferer names the image for which a network's output is not finite."""

from __future__ import annotations

import math

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from segan_monai.finite import NonFiniteOutputError
from segan_monai.inferers import FiniteInferer, NormalizingWindowInferer, RoISliceInferer, VolumeSliceInferer
from tests.networks.known_lsnet import known

NOT_FINITE = [math.nan, math.inf, -math.inf]


class Broken(nn.Module):
    """The image as logits, and one value that is not finite where the image is 7."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return torch.where(x == 7, self.value, x)

    def segment_and_normalize(self, x):
        return torch.cat([self(x), x], dim=1)


def images(*shape, ending=".nii.gz"):
    """Two images of ones with names; the second has a 7."""
    values = torch.ones(2, 1, *shape)
    values[1].flatten()[-1] = 7
    files = [f"/data/case_a{ending}", f"/data/v1.0 b{ending}"]
    return MetaTensor(values, meta={"filename_or_obj": files})


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize(
    ("inferer", "shape", "ending"),
    [
        (VolumeSliceInferer(), (6, 6, 4), ".nii.gz"),
        (VolumeSliceInferer(axis=[0, 2]), (6, 6, 4), ".nii.gz"),
        (RoISliceInferer(), (6, 6, 4), ".nii.gz"),
        (NormalizingWindowInferer(roi_size=(4, 4, 4), mode="gaussian"), (6, 6, 4), ".nii.gz"),
        (FiniteInferer(), (6, 6), ".png"),
    ],
    ids=["slices", "axes", "rois", "windows", "photographs"],
)
def test_output_that_is_not_finite_names_the_image(inferer, shape, ending, value):
    batch = images(*shape, ending=ending)
    with pytest.raises(NonFiniteOutputError, match=r"^case v1.0 b: \d+ of \d+ values of the network's output are NaN"):
        inferer(batch, Broken(value))
    assert inferer(batch, Broken(3.0)).isfinite().all()


def test_images_without_names_are_numbered():
    with pytest.raises(NonFiniteOutputError, match=r"^image 2 of the batch: 1 of 36 values"):
        FiniteInferer()(images(6, 6).as_tensor(), Broken(math.nan))


def test_numbers_whose_sum_overflows_are_finite():
    values = torch.full((1, 1, 4, 4), 3e38)
    assert torch.equal(FiniteInferer()(values, nn.Identity()), values)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("stage", ["localization", "segmentation"])
def test_both_stages_of_lsnet(stage, value):
    """A heatmap of NaN would look like no RoI, and a mask of infinite logits like any other."""
    network = known()
    part = network.localizer if stage == "localization" else network.segmentor

    def spoil(module, inputs, output):
        return tuple(value + 0 * o for o in output) if isinstance(output, tuple) else value + 0 * output

    volume = torch.zeros(1, 1, 64, 64, 2)
    volume[..., 20:40, 20:40, 1] = 1
    inferer = RoISliceInferer()
    assert (inferer(volume, network) > 0).any()
    with part.register_forward_hook(spoil), pytest.raises(NonFiniteOutputError, match=rf"^image 1 .*: {stage} network"):
        inferer(MetaTensor(volume), network)
