# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.transforms import Compose, RandScaleIntensity

from segan_monai.errors import ConfigError
from segan_monai.transforms import EachModalityd


def scaled(seed=0, modalities=2, prob=1.0):
    transform = Compose([RandScaleIntensity(factors=0.5, prob=prob)])
    return EachModalityd("image", modalities, transform).set_random_state(seed)


def test_slices_of_one_modality_change_alike_and_modalities_apart():
    changed = scaled()({"image": torch.ones(6, 4, 5), "label": torch.ones(1, 4, 5)})
    factors = changed["image"].mean((1, 2))
    torch.testing.assert_close(factors[0::2], factors[0].expand(3))
    torch.testing.assert_close(factors[1::2], factors[1].expand(3))
    assert abs(factors[0] - factors[1]) > 0.01
    assert changed["label"].min() == 1


def test_without_a_change_the_channels_keep_their_order():
    image = torch.arange(6 * 2 * 3.0).reshape(6, 2, 3)
    assert torch.equal(scaled(prob=0.0)({"image": image})["image"], image)


def test_each_seed_has_its_numbers():
    image = torch.ones(6, 4, 5)
    first, same, other = (scaled(seed)({"image": image})["image"] for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_wrong_number_of_modalities():
    with pytest.raises(ConfigError, match="'image' has 6 channels, expected a multiple of the 4 modalities"):
        scaled(modalities=4)({"image": torch.ones(6, 4, 5)})
