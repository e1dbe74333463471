# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from segan_monai.errors import ConfigError
from segan_monai.networks import DomainDiscriminator


@pytest.mark.parametrize("domains", [1, 2, 5])
@pytest.mark.parametrize("size", [(32, 32, 32), (16, 20, 33), (9, 9, 9)])
def test_any_patch_and_any_number_of_domains(domains, size):
    assert DomainDiscriminator(domains)(torch.rand(2, 1, *size)).shape == (2, domains + 1)


def test_it_is_the_authors_network():
    network = DomainDiscriminator(2)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    assert [m.out_channels for m in convolutions] == [16, 32, 64, 128]
    assert {m.stride for m in convolutions} == {(2, 2, 2)}
    assert {m.kernel_size for m in convolutions} == {(3, 3, 3)}
    assert [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm3d)] == [32, 64, 128]
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout3d | nn.Dropout)} == {0.25}
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_planes_too():
    assert DomainDiscriminator(3, spatial_dims=2, channels=(4, 8))(torch.rand(2, 1, 20, 20)).shape == (2, 4)


def test_monais_resnet_by_config():
    config = {"_target_": "resnet10", "spatial_dims": 3, "n_input_channels": 1, "num_classes": 3}
    network = ConfigParser({"network": config}).get_parsed_content("network")
    assert network(torch.rand(2, 1, 32, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("arguments", [{"num_domains": 0}, {"num_domains": 1, "channels": ()}])
def test_nothing_to_tell_apart(arguments):
    with pytest.raises(ConfigError, match="expected at least one"):
        DomainDiscriminator(**arguments)
