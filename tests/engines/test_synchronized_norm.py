# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ignite.distributed as idist
import pytest
import torch
from torch import nn

from segan_monai.engines.synchronized_norm import synchronize_batch_norm
from segan_monai.errors import ConfigError
from segan_monai.networks import SegANSegmentor
from tests.engines.distributed_run import make_batches, make_trainer


def layers(network):
    return [module for module in network.modules() if isinstance(module, nn.SyncBatchNorm)]


@pytest.mark.parametrize("name", ["segan", "normalization", "lsnet"])
def test_without_a_gpu_it_is_refused(name):
    with pytest.raises(ConfigError, match=r"sync_batch_norm is true on cpu.*needs GPUs. Omit it, or use norm layers"):
        make_trainer(name, make_batches(name), sync_batch_norm=True)


def test_layers_are_replaced_with_their_weights_and_names(monkeypatch):
    network = SegANSegmentor(1, 1, base_channels=4)
    names, weights = [*network.state_dict()], [*network.parameters()]
    synchronize_batch_norm([network], torch.device("cuda"))
    assert not layers(network), "one process has nothing to exchange"
    monkeypatch.setattr(idist, "get_world_size", lambda: 2)
    synchronize_batch_norm([network], torch.device("cuda"))
    assert len(layers(network)) == 6
    assert not [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [*network.state_dict()] == names
    assert all(new is old for new, old in zip(network.parameters(), weights, strict=True)), "the optimizer's weights"
