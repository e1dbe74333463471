# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Every inferer averages what the members of an ensemble give alone."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from segan_monai.inferers import FiniteInferer, VolumeSliceInferer, VolumeWindowInferer
from segan_monai.networks import NetworkEnsemble

INFERERS = {
    "slices": (VolumeSliceInferer(axis=[2, 0], mirror_axes=[1], batch_size=3), nn.Conv2d(1, 2, 3, padding=1), 5),
    "windows": (VolumeWindowInferer((8, 8, 8), mirror_axes=[0]), nn.Conv3d(1, 2, 3, padding=1), 5),
    "photographs": (FiniteInferer(mirror_axes=[0]), nn.Conv2d(1, 2, 3, padding=1), 4),
}


@pytest.mark.parametrize("name", INFERERS)
def test_the_mean_is_of_what_each_member_gives_for_the_whole_image(name):
    inferer, network, dimensions = INFERERS[name]
    torch.manual_seed(0)
    ensemble = NetworkEnsemble(network, 2)
    for parameter in ensemble.parameters():
        nn.init.normal_(parameter, std=2.0)
    image = MetaTensor(torch.rand(1, 1, 9, 10, 7)[(..., *[0] * (5 - dimensions))], meta={"spatial_shape": (9, 10)})
    with torch.no_grad():
        first, second = (inferer(image, member).sigmoid() for member in ensemble.members)
        both = inferer(image, ensemble)
    assert isinstance(both, MetaTensor)
    assert (first - second).abs().max() > 0.1
    assert (both.sigmoid() - (first + second) / 2).abs().max() < 1e-6
