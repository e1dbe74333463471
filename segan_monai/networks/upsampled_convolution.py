# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Bilinear upsampling and the convolution after it, in one layer that computes on the small plane."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_CHANNELS = 16  # convolutions to fewer waste most of the width of a processor's registers


def upsampling_taps(size: int, like: Tensor) -> Tensor:
    """The matrices (3, 2 * size, size) of upsampling a line by 2, shifted by -1, 0 and 1, with zeros beyond its ends.

    Row r of matrix t has the weights with which the values of the line enter pixel r + t - 1 of the upsampled line:
    3/4 and 1/4, and 1 at the ends, as ``align_corners=False`` has it.

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
    """``Conv2d(Upsample(x))``: bilinear by 2, then 3x3 with padding 1; weights as of `torch.nn.Conv2d`.

    Both are linear, so they may change places: nine 1x1 convolutions on the small plane give what each of the nine taps
    contributes, and two products with fixed matrices upsample, shift and add them [ours]. That is a quarter of the
    products of the weights plus ``(H / 2 + W / 3) / C`` of them, and the upsampled features are never written. The
    result is the same up to rounding, borders included. Where it would not pay (large planes of few channels), and in
    exported graphs, the two layers are applied as they are written.

    Args:
        in_channels: features of the small plane.
        out_channels: features of the large plane.
        bias: see `torch.nn.Conv2d`.

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
        else:  # TorchScript leaves this branch out, if it is one
            exported = torch.jit.is_tracing() or torch.compiler.is_exporting()
            small = not exported and self.is_cheaper_on_small_plane(input)
            return self.on_small_plane(input) if small else self.as_written(input)

    def is_cheaper_on_small_plane(self, x: Tensor) -> bool:
        """Whether that saves time: the products with the fixed matrices grow with the plane's sides."""
        if self.out_channels < FEW_CHANNELS:
            return True
        return x.shape[2] / 2 + x.shape[3] / 3 <= 0.3 * self.in_channels

    def as_written(self, x: Tensor) -> Tensor:
        """Upsample, then convolve."""
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return F.conv2d(x, self.weight, self.bias, padding=1)

    def on_small_plane(self, x: Tensor) -> Tensor:
        """The same with a quarter of the products."""
        (batch, _, height, width), channels = x.shape, self.out_channels
        rows = [self._row_of_taps(x, row) for row in range(3)]
        down = upsampling_taps(height, rows[0])[:, None].expand(-1, batch, -1, -1)
        columns = torch.bmm(down[0], rows[0])
        for row in (1, 2):
            columns = torch.baddbmm(columns, down[row], rows[row])
        across = upsampling_taps(width, columns).permute(1, 2, 0).flatten(1)  # (2 W, 3 W): of (column, tap)
        lines = columns.view(batch * 2 * height, 3 * width, channels)
        if channels < FEW_CHANNELS:  # one product of all lines: those of a line each would have as few columns
            y = torch.mm(across, lines.transpose(0, 1).flatten(1)).view(2 * width, batch, 2 * height, channels)
            y = y.permute(1, 3, 2, 0).contiguous(memory_format=torch.channels_last)
        else:
            y = torch.bmm(across.expand(len(lines), -1, -1), lines)
            y = y.view(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]

    def _row_of_taps(self, x: Tensor, row: int) -> Tensor:
        """What the three taps of a row of the kernel contribute, channels last: (B, H, W * 3 * K)."""
        weight = self.weight[:, :, row].permute(2, 0, 1).flatten(0, 1)
        return F.linear(x.permute(0, 2, 3, 1), weight).flatten(2)
