# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Norm layers by key, in segmentors and critics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segan_monai.errors import ConfigError
from segan_monai.networks import DomainDiscriminator, SegANCritics, SegANSegmentor
from segan_monai.networks.norm import norm_layer

GROUP = ["group", {"num_groups": 2}]


def test_group_norm_by_hand():
    layer = norm_layer(GROUP, 2, 4)
    x = torch.tensor([1.0, 3.0, 10.0, 30.0]).reshape(1, 4, 1, 1)
    torch.testing.assert_close(layer(x).flatten(), torch.tensor([-1.0, 1.0, -1.0, 1.0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_with_group_norm_images_do_not_depend_on_each_other(spatial_dims):
    image = torch.rand(2, 1, *[16] * spatial_dims)
    settings = {"base_channels": 4, "num_levels": 2, "full_resolution_channels": 2, "spatial_dims": spatial_dims}
    apart = {}
    for norm in ("batch", GROUP):
        network = SegANSegmentor(1, 1, **settings, norm=norm).train()
        apart[str(norm)] = (network(image)[:1] - network(image[:1])).abs().max()
    assert apart[str(GROUP)] < 1e-5 < 1e-3 < apart["batch"]


def test_critics_take_names_and_switches():
    kinds = {True: nn.BatchNorm2d, "batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}
    for norm, kind in kinds.items():
        critics = SegANCritics(1, 1, base_channels=4, norm=norm)
        assert sum(isinstance(module, kind) for module in critics.modules()) == 2, "from the second block on"
    names = SegANCritics(1, 1, base_channels=4, norm=GROUP).state_dict().keys()
    assert names < SegANCritics(1, 1, base_channels=4, norm=True).state_dict().keys(), "all but running statistics"
    without = SegANCritics(1, 1, base_channels=4, norm=False)
    assert not [module for module in without.modules() if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)]


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        ("group", r"norm is 'group' for 8 channels .*num_groups.*expected a norm layer of MONAI with its arguments"),
        (["group", {"num_groups": 3}], r"for 8 channels \(num_channels.* must be divisible by num_groups"),
        ("bach", r"norm is 'bach' for 8 channels"),
        ("syncbatch", r"expected 'batch', and sync_batch_norm true for several GPUs"),
    ],
)
def test_a_layer_that_does_not_fit(norm, message):
    with pytest.raises(ConfigError, match=message):
        SegANSegmentor(1, 1, base_channels=4, num_levels=2, norm=norm)


def test_the_discriminator_names_it_too():
    with pytest.raises(ConfigError, match=r"norm is 'group' for 32 channels"):
        DomainDiscriminator(2, norm="group")
