# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trilinear upsampling followed by a 3-D convolution, fused into one layer that computes on smaller volumes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.networks.upsampled_convolution import FEW_CHANNELS, upsampling_taps


def shifting_taps(size: int, scale: int, like: Tensor) -> Tensor:
    """Return the matrices (3, scale * size, size) that upsample a line by 1 or 2, shifted by -1, 0 and 1.

    Examples:
        >>> shifting_taps(2, 1, torch.zeros(1))[0]
        tensor([[0., 0.],
                [1., 0.]])
    """
    if scale == 2:
        return upsampling_taps(size, like)
    line = torch.eye(size, device=like.device, dtype=like.dtype)
    return torch.stack([F.pad(line, [0, 0, 1, 0])[:-1], line, F.pad(line, [0, 0, 0, 1])[1:]])


class UpsampledConv3d(nn.Conv3d):
    """``Conv3d(Upsample(x))``: trilinear upsampling, then a 3x3x3 convolution with padding 1.

    As in ``UpsampledConv2d``, the order of linear operations is exchanged [ours]:

    1. The last axis is upsampled. Nine convolutions along it compute the contribution of each row of the kernel.
    2. Products with fixed matrices upsample, shift and add the contributions along the first and the second axis.

    Nothing has the size of the upsampled features, and the result is equal up to rounding. The two layers run in
    sequence in exported graphs, and where that is faster.

    Args:
        in_channels: number of channels of the small volume.
        out_channels: number of channels of the large volume.
        bias: see ``torch.nn.Conv3d``.
        scale: factor of the upsampling along each axis, 1 or 2.

    Examples:
        >>> UpsampledConv3d(8, 4, scale=(2, 2, 1))(torch.rand(1, 8, 5, 7, 3)).shape
        torch.Size([1, 4, 10, 14, 3])
    """

    def __init__(
        self, in_channels: int, out_channels: int, bias: bool = True, scale: Sequence[int] = (2, 2, 2)
    ) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)
        self.scale = [int(factor) for factor in scale]
        self.scale_factor = [float(factor) for factor in scale]

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W, D) to (B, K, s_1 H, s_2 W, s_3 D)."""
        if torch.jit.is_scripting():
            return self.as_written(input)
        else:  # TorchScript skips this branch only if it is an explicit else
            exported = torch.jit.is_tracing() or torch.compiler.is_exporting()
            small = not exported and self.is_cheaper_in_parts(input)
            return self.in_parts(input) if small else self.as_written(input)

    def is_cheaper_in_parts(self, x: Tensor) -> bool:
        """Return whether ``in_parts`` is faster; its products with fixed matrices grow with the first two axes."""
        return self.out_channels < FEW_CHANNELS or 1.5 * x.shape[2] + x.shape[3] <= 2 * self.in_channels

    def as_written(self, x: Tensor) -> Tensor:
        """Upsample and convolve in sequence."""
        x = F.interpolate(x, scale_factor=self.scale_factor, mode="trilinear", align_corners=False)
        return F.conv3d(x, self.weight, self.bias, padding=1)

    def in_parts(self, x: Tensor) -> Tensor:
        """Compute the same result without the upsampled features."""
        if self.scale[2] == 2:
            x = F.interpolate(x, scale_factor=[1.0, 1.0, 2.0], mode="trilinear", align_corners=False)
        (batch, _, height, width, depth), (down, across) = x.shape, self.scale[:2]
        lines = []
        for column in range(3):
            rows = [self._along_depth(x, row, column).reshape(batch, height, -1) for row in range(3)]
            taps = shifting_taps(height, down, rows[0])
            lines.append(_sum_of_products(taps, rows).view(batch * down * height, width, -1))
        y = _sum_of_products(shifting_taps(width, across, lines[0]), lines)
        y = y.view(batch, down * height, across * width, depth, self.out_channels).permute(0, 4, 1, 2, 3)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None, None]

    def _along_depth(self, x: Tensor, row: int, column: int) -> Tensor:
        """Convolve along the last axis with one row of the kernel; channels last: (B, H, W, D, K)."""
        weight = self.weight[:, :, row, column][:, :, None, None]
        return F.conv3d(x, weight, padding=(0, 0, 1)).permute(0, 2, 3, 4, 1)


def _sum_of_products(taps: Tensor, lines: list[Tensor]) -> Tensor:
    """Return the sum of ``taps[i] @ lines[i]``: matrices (3, m, n) and tensors (B, n, ...) to (B, m, ...)."""
    matrices = taps[:, None].expand(-1, len(lines[0]), -1, -1)
    total = torch.bmm(matrices[0], lines[0])
    for matrix, line in zip(matrices[1:], lines[1:], strict=True):
        total = torch.baddbmm(total, matrix, line)
    return total
