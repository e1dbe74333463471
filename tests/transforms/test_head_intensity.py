# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CropForegroundd

from segan_monai.errors import DataError
from segan_monai.transforms import ScaleHeadd, SlicesWithContentd, scale_head
from segan_monai.transforms.head_intensity import noise_share


def head(noise=3.0):
    """A head of 4 x 4 x 2 voxels, 40 to 71, in air that is noise."""
    image = torch.full((1, 10, 12, 6), noise)
    image[0, 3:7, 4:8, 2:4] = torch.arange(40.0, 72).reshape(4, 4, 2)
    return image


def test_the_median_of_the_head_becomes_one_half():
    scaled = scale_head(head())
    # of 40..71 the median is 55.5, so that 71 becomes 71 / 111
    assert scaled.max().item() == pytest.approx(71 / 111)
    assert scaled[0, 3:7, 4:8, 2:4].median().item() == pytest.approx(55 / 111)


def test_bright_voxels_are_clipped_to_2():
    image = head()
    image[0, 3, 4, 2] = 1e4  # the mean rises to 18, the median stays
    assert scale_head(image).max() == 2


def test_noise_outside_of_the_heads_becomes_0():
    image = torch.cat([head(), head().roll(2, 1)])  # the second channel's head ends two voxels later
    scaled = scale_head(image)
    assert (scaled[:, 3:9, 4:8, 2:4] > 0).all(), "the box of both, with noise beside each"
    assert torch.count_nonzero(scaled) == 2 * 6 * 4 * 2


def test_cropping_and_sampling_see_the_head():
    data = CropForegroundd(["image"], "image", allow_smaller=True)(ScaleHeadd("image")({"image": head()}))
    assert data["image"].shape == (1, 4, 4, 2)
    kept = SlicesWithContentd("image")(ScaleHeadd("image")({"image": head()}))
    assert kept["image_slices"][2].tolist() == [2, 3]


def test_units_of_the_scanner_do_not_matter():
    torch.testing.assert_close(scale_head(head() * 1.7e6), scale_head(head()))


def test_empty_and_constant_channels_are_0():
    image = torch.cat([head(), torch.zeros(1, 10, 12, 6), torch.full((1, 10, 12, 6), 0.3)])
    scaled = scale_head(image)
    assert torch.equal(scaled[:1], scale_head(head()))
    assert not scaled[1:].any()
    assert not scale_head(image[1:]).any()


def test_standardized_images_are_refused_by_case():
    image = head() - 1000
    with pytest.raises(DataError, match=r"case c7: channel 0 has a median of -944.5 .* set intensity_window"):
        ScaleHeadd("image")({"image": image, "case": "c7"})


def test_dictionary_version_keeps_the_metadata_and_the_input():
    affine = torch.diag(torch.tensor([2.0, 2, 3, 1], dtype=torch.float64))
    image = MetaTensor(head(), affine=affine, meta={"filename_or_obj": "case.nii.gz"})
    before = image.clone()
    scaled = ScaleHeadd("image")({"image": image})["image"]
    assert torch.equal(scaled.affine, affine)
    assert scaled.meta["filename_or_obj"] == "case.nii.gz"
    assert torch.equal(image, before)


def test_share_of_noise():
    image = head().numpy()[0]
    assert noise_share(image) == pytest.approx(1 - 32 / 720)
    assert noise_share(np.where(image < 4, 0, image)) == 0, "skull-stripped"
    assert noise_share(np.where(image < 4, 6, image)) == 0, "6 is more than a tenth of 55.5"
    assert noise_share(np.zeros((3, 3, 3), np.float32)) == 0
