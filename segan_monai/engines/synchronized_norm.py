# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Batch norm with the statistics of all processes."""

from __future__ import annotations

from collections.abc import Iterable

import ignite.distributed as idist
import torch
from torch import nn

from segan_monai.errors import ConfigError


def synchronize_batch_norm(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Replace batch norm layers in place by PyTorch's ``SyncBatchNorm``, with the same weights under the same names.

    In a run of one process it does nothing. Checkpoints load into networks with either kind of layer.

    Args:
        networks: networks on the device, none of which is a norm layer itself.
        device: device of this process.

    Raises:
        ConfigError: if the device is no GPU.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"sync_batch_norm is true on {device}, but PyTorch's SyncBatchNorm needs GPUs. Omit it, or use norm "
            "layers without statistics of a batch: --norm \"['group',{'num_groups':4}]\"."
        )
    if idist.get_world_size() > 1:
        for network in networks:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
