# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Bilinear upsampling followed by a convolution, fused into one layer that computes on the small plane."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_CHANNELS = 16  # with fewer output channels, convolutions waste most of the SIMD width


def upsampling_taps(size: int, like: Tensor) -> Tensor:
    """Return the matrices (3, 2 * size, size) that upsample a line by 2, shifted by -1, 0 and 1, with zero padding.

    Row r of matrix t holds the weights of the line's values in pixel r + t - 1 of the upsampled line: 3/4 and 1/4, and
    1 at the ends, as for ``align_corners=False``.

    Examples:
        >>> upsampling_taps(2, torch.zeros(1))[1]
        tensor([[1.0000, 0.0000],
                [0.7500, 0.2500],
                [0.2500, 0.7500],
                [0.0000, 1.0000]])
    """
    line = torch.eye(size, device=like.device)[None]
    line = F.pad(F.interpolate(line, scale_factor=2.0, mode="linear", align_corners=False)[0], [1, 1])
    return line.T.unfold(0, 2 * size, 1).permute(0, 2, 1).to(like.dtype).contiguous()


class UpsampledConv2d(nn.Conv2d):
    """``Conv2d(Upsample(x))``: bilinear upsampling by 2, then a 3x3 convolution with padding 1.

    The weights are those of ``torch.nn.Conv2d``. Both operations are linear, so their order can be exchanged [ours]:

    1. Nine 1x1 convolutions on the small plane compute the contribution of each kernel tap.
    2. Two products with fixed matrices upsample, shift and add the contributions.

    This takes a quarter of the multiplications with the weights, plus ``(H / 2 + W / 3) / C`` of them, and never
    materializes the upsampled features. The result is equal up to rounding, including at the borders. The two
    layers run in sequence in exported graphs, and where that is faster (large planes with few input channels).

    Args:
        in_channels: number of channels of the small plane.
        out_channels: number of channels of the large plane.
        bias: see ``torch.nn.Conv2d``.

    Examples:
        >>> UpsampledConv2d(8, 4)(torch.rand(1, 8, 5, 7)).shape
        torch.Size([1, 4, 10, 14])
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, K, 2 H, 2 W)."""
        if torch.jit.is_scripting():
            return self.as_written(input)
        else:  # TorchScript skips this branch only if it is an explicit else
            exported = torch.jit.is_tracing() or torch.compiler.is_exporting()
            small = not exported and self.is_cheaper_on_small_plane(input)
            return self.on_small_plane(input) if small else self.as_written(input)

    def is_cheaper_on_small_plane(self, x: Tensor) -> bool:
        """Return whether ``on_small_plane`` is faster; its products with fixed matrices grow with the plane's sides."""
        if self.out_channels < FEW_CHANNELS:
            return True
        return x.shape[2] / 2 + x.shape[3] / 3 <= 0.3 * self.in_channels

    def as_written(self, x: Tensor) -> Tensor:
        """Upsample and convolve in sequence."""
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return F.conv2d(x, self.weight, self.bias, padding=1)

    def on_small_plane(self, x: Tensor) -> Tensor:
        """Compute the same result with a quarter of the multiplications."""
        (batch, _, height, width), channels = x.shape, self.out_channels
        rows = [self._row_of_taps(x, row) for row in range(3)]
        down = upsampling_taps(height, rows[0])[:, None].expand(-1, batch, -1, -1)
        columns = torch.bmm(down[0], rows[0])
        for row in (1, 2):
            columns = torch.baddbmm(columns, down[row], rows[row])
        across = (
            upsampling_taps(width, columns).permute(1, 2, 0).flatten(1)
        )  # (2 W, 3 W); columns are ordered by (column, tap)
        lines = columns.view(batch * 2 * height, 3 * width, channels)
        if channels < FEW_CHANNELS:  # one product over all lines: products per line would have too few columns
            y = torch.mm(across, lines.transpose(0, 1).flatten(1)).view(2 * width, batch, 2 * height, channels)
            y = y.permute(1, 3, 2, 0).contiguous(memory_format=torch.channels_last)
        else:
            y = torch.bmm(across.expand(len(lines), -1, -1), lines)
            y = y.view(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]

    def _row_of_taps(self, x: Tensor, row: int) -> Tensor:
        """Compute the contributions of the three taps in a kernel row, channels last: (B, H, W * 3 * K)."""
        weight = self.weight[:, :, row].permute(2, 0, 1).flatten(0, 1)
        return F.linear(x.permute(0, 2, 3, 1), weight).flatten(2)
