# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from segan_monai.errors import ConfigError
from segan_monai.transforms import RandContrastCurve, RandContrastCurved, map_intensities


def test_a_straight_curve_changes_nothing_and_a_falling_one_inverts():
    image = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
    torch.testing.assert_close(map_intensities(image, [0.3, 0.9]), image)
    # 1, 2, 5 become 1, 3/4, 0, then mean 8/3 and the same deviation: 8/3 - (x - 8/3)
    torch.testing.assert_close(map_intensities(image, [1.0, 0.0]), torch.tensor([[0.0, 13 / 3], [10 / 3, 1 / 3]]))


def test_a_curve_with_a_bend_by_hand():
    # 1, 2, 3 become 0, 1, 0: mean 1/3, deviation sqrt(2) / 3; of the image 2 and sqrt(2 / 3)
    found = map_intensities(torch.tensor([0.0, 1.0, 2.0, 3.0]), [0.0, 1.0, 0.0])
    step = (2 / 3) ** 0.5 / (2**0.5 / 3)
    torch.testing.assert_close(found, torch.tensor([0.0, 2 - step / 3, 2 + 2 * step / 3, 2 - step / 3]))


def test_a_few_bright_voxels_do_not_stretch_the_curve():
    image = torch.tensor([1.0, 2.0, 3.0] * 300 + [1000.0])
    found = map_intensities(image, [0.0, 1.0, 0.0])  # 1 and 3 lie at the ends, and so does what is beyond
    torch.testing.assert_close(found[[0, 2, 900]], found[0].expand(3))
    assert found[1] > found[0]


def test_background_mean_and_deviation_stay():
    torch.manual_seed(0)
    image = torch.rand(2, 9, 9, 9) + 0.5
    image[:, :3] = 0
    curve = RandContrastCurve(prob=1.0)
    curve.set_random_state(0)
    found = curve(image)
    assert (found[:, :3] == 0).all()
    assert not torch.allclose(found, image, atol=0.1)
    for statistic in (torch.mean, torch.std):
        torch.testing.assert_close(statistic(found[:, 3:]), statistic(image[:, 3:]))


@pytest.mark.parametrize("image", [torch.zeros(1, 3, 3), torch.full((1, 3, 3), 2.0)], ids=["empty", "constant"])
def test_an_image_without_contrast_stays(image):
    assert torch.equal(RandContrastCurve(prob=1.0)(image), image)


def test_probability_seed_and_metadata():
    image = MetaTensor(torch.rand(1, 6, 6) + 1, affine=torch.eye(4) * 2)
    never, always = (RandContrastCurved("image", prob=prob) for prob in (0.0, 1.0))
    assert never({"image": image})["image"] is image
    found = [Compose([always]).set_random_state(3)({"image": image})["image"] for _ in range(2)]
    assert torch.equal(*found)
    assert not torch.allclose(found[0], image)
    assert torch.equal(found[0].affine, image.affine)
    other = Compose([always]).set_random_state(4)({"image": image})["image"]
    assert not torch.allclose(found[0], other)


def test_knots():
    with pytest.raises(ConfigError, match="knots is 1; expected at least 2"):
        RandContrastCurve(knots=1)
