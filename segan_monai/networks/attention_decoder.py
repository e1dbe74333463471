# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Attention gates for the skip connections of a U-Net decoder: Oktay et al. (2018), Attention U-Net."""

from __future__ import annotations

from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.nets.basic_unet import UpCat
from torch import Tensor, nn


class GatedUpCat(nn.Module):
    """Level of a U-Net decoder whose skip connection passes an attention gate.

    The gate multiplies the encoder's features by a map from 0 to 1, which follows from these features and from the
    coarser level, enlarged. It uses MONAI's ``AttentionBlock`` with half the encoder's channels inside.

    Args:
        level: upsamples, concatenates and convolves; without a convolution before upsampling.
        coarse_channels: channels of the coarser level.
        skip_channels: channels of the encoder's features.
    """

    def __init__(self, level: UpCat, coarse_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.level = level
        self.gate = AttentionBlock(2, f_int=max(1, skip_channels // 2), f_g=coarse_channels, f_l=skip_channels)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Map (B, C, h, w) and encoder features (B, S, 2h, 2w) to (B, D, 2h, 2w)."""
        if skip is not None:
            skip = self.gate(self.level.upsample(x), skip)
        return self.level(x, skip)
