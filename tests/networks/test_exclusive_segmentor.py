# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.networks import ExclusiveClassSegmentor, SegANSegmentor

REGIONS = {"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}


def test_evaluation_gives_the_regions_of_the_softmax():
    torch.manual_seed(0)
    network = ExclusiveClassSegmentor(2, 3, REGIONS, base_channels=4).eval()
    image = torch.rand(2, 2, 33, 40)
    probabilities = network.segmentor(image).softmax(1)  # background, enhancing, core, oedema
    enhancing, core, oedema = probabilities[:, 1:].unbind(1)
    expected = torch.stack([oedema + core + enhancing, core + enhancing, enhancing], dim=1)
    torch.testing.assert_close(network(image).sigmoid(), expected)


def test_it_is_the_segmentor_but_for_the_last_layer():
    network = ExclusiveClassSegmentor(2, 3, REGIONS, base_channels=4)
    segmentor = SegANSegmentor(2, 3, base_channels=4)
    assert network.train()(torch.rand(2, 2, 32, 32)).shape == (2, 4, 32, 32)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(network) - count(segmentor) == 8 * 9 + 1  # a fourth output channel of the last convolution


def test_weights_alone_are_saved():
    network = ExclusiveClassSegmentor(1, 1, {"lesion": [1]}, base_channels=4)
    assert all(key.startswith("segmentor.") for key in network.state_dict())


def test_number_of_regions_is_checked():
    with pytest.raises(
        ValueError, match=r"out_channels is 2, but there are 3 regions: \['whole', 'core', 'enhancing'\]"
    ):
        ExclusiveClassSegmentor(2, 2, REGIONS)
