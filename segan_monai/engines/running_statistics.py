# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Running statistics of norm layers, which each process has of its own until the end of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segan_monai.processes import average_over_processes


class RunningStatistics:
    """Running statistics of the norm layers of networks: all their buffers of real numbers.

    Args:
        networks: the networks by name.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.networks = dict(networks)

    def tensors(self) -> dict[str, Tensor]:
        """Return the statistics by network and name."""
        return {
            f"{network}.{name}": buffer
            for network, module in self.networks.items()
            for name, buffer in module.named_buffers()
            if buffer.is_floating_point()
        }

    def average(self) -> None:
        """Average the statistics over all processes, in place."""
        average_over_processes([*self.tensors().values()])

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics on the CPU, where other processes can receive them."""
        return {name: tensor.cpu() for name, tensor in self.tensors().items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; networks that the state lacks keep theirs."""
        for name, tensor in self.tensors().items():
            if name in state:
                tensor.copy_(state[name])
