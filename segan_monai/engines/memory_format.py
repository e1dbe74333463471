# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Channels-last memory format of images and networks with two or three axes."""

from __future__ import annotations

import torch
from torch import nn

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Format of tensors (B, C, H, W) and (B, C, H, W, D) by their number of axes."""


def use_channels_last(module: nn.Module) -> None:
    """Convert the weights of a module, whose convolutions all have the same number of axes, to channels-last."""
    for axes, memory_format in CHANNELS_LAST.items():
        if any(weight.ndim == axes for weight in module.parameters()):
            module.to(memory_format=memory_format)  # type: ignore[call-overload]
