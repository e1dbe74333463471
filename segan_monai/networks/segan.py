# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Segmentor of SegAN: Xue et al. (2018), Section 2.2 and Fig. 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.networks.level_strides import strides_of_levels
from segan_monai.networks.norm import norm_layer
from segan_monai.networks.upsampled_convolution import UpsampledConv2d
from segan_monai.networks.upsampled_convolution_3d import UpsampledConv3d


def _down(in_channels: int, out_channels: int, norm: str | Sequence | None, stride: Sequence[int]) -> nn.Sequential:
    """Build a down-sampling block: strided convolution, norm, leaky ReLU 0.2.

    The kernel has 4 taps along an axis that is halved, so that it is symmetric about the coarser voxel, else 3.
    """
    dims = len(stride)
    kernel = [4 if step == 2 else 3 for step in stride]
    layers: list[nn.Module] = [
        Conv["conv", dims](in_channels, out_channels, kernel, stride=tuple(stride), padding=1, bias=norm is None)
    ]
    if norm is not None:
        layers.append(norm_layer(norm, dims, out_channels))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True))


def _conv(in_channels: int, out_channels: int, norm: str | Sequence, spatial_dims: int) -> list[nn.Module]:
    """Build a block of convolution with 3 taps per axis, norm, leaky ReLU 0.2."""
    return [
        Conv["conv", spatial_dims](in_channels, out_channels, 3, padding=1, bias=False),
        norm_layer(norm, spatial_dims, out_channels),
        nn.LeakyReLU(0.2, inplace=True),
    ]


def down_sampling_blocks(
    in_channels: int, widths: list[int], norm: str | Sequence | None, strides: Sequence[Sequence[int]]
) -> nn.ModuleList:
    """Build the down-sampling blocks shared by segmentor and critic; the first one has no norm."""
    inputs = [in_channels, *widths[:-1]]
    blocks = zip(inputs, widths, strides, strict=True)
    return nn.ModuleList(_down(i, o, norm if level else None, stride) for level, (i, o, stride) in enumerate(blocks))


def _cropped(x: Tensor, start: list[int], size: list[int]) -> Tensor:
    """Crop the spatial axes of (B, C, H, W[, D])."""
    if len(size) == 2:
        return x[..., start[0] : start[0] + size[0], start[1] : start[1] + size[1]]
    return x[..., start[0] : start[0] + size[0], start[1] : start[1] + size[1], start[2] : start[2] + size[2]]


class SegANSegmentor(nn.Module):
    """Segmentor S: a fully convolutional encoder-decoder with one logit map per class.

    Each encoder level halves the plane with a strided 4x4 convolution. Each decoder level upsamples by 2 (bilinear),
    applies a 3x3 convolution, and concatenates the encoder features of the same size. Inputs of any size are accepted:
    they are zero-padded on both sides to multiples of ``2 ** num_levels``, and the logits are cropped back.

    With ``spatial_dims`` 3 [ours], it is the same network on volumes, with kernels of 4x4x4 and 3x3x3 and trilinear
    upsampling.

    Args:
        in_channels: number of modalities C.
        out_channels: number of classes K. Classes may overlap; each has a separate sigmoid.
        base_channels: width of the first level; level i has ``base_channels * 2 ** i`` channels (paper: 64).
        num_levels: number of down-sampling levels (paper: 4). The skin-lesion code uses more.
        max_channels: upper bound of the width of a level; None for no bound (paper: none, 512 at the fourth level).
        full_resolution_channels: 0 as in the paper, whose finest features have half the image's resolution. Otherwise
            two 3x3 convolutions of this width precede the first level, and their output is concatenated with the
            decoder's before the last convolutions [ours: improves thin structures such as the hippocampus].
        deep_supervision: number of coarser decoder levels that also predict logits, which only training uses; fewer
            than ``num_levels`` (paper: 0). For a loss such as MONAI's ``DeepSupervisionLoss``.
        spatial_dims: 2 for slices, 3 for volumes.
        level_strides: strides of the first levels, 1 or 2 per axis, such as ``[[2, 2, 1]]`` for thick slices, whose
            distance is then halved from the second level on; other levels halve every axis. None for 2 everywhere.
        norm: norm layers, as in MONAI (paper: batch), see ``norm_layer``.

    Raises:
        ConfigError: if ``full_resolution_channels`` is negative, ``deep_supervision``, ``level_strides`` or ``norm``
            does not fit, or another count is not positive.

    Examples:
        >>> SegANSegmentor(in_channels=3, out_channels=3, base_channels=8)(torch.zeros(2, 3, 155, 161)).shape
        torch.Size([2, 3, 155, 161])
        >>> SegANSegmentor(1, 2, base_channels=4, spatial_dims=3)(torch.zeros(1, 1, 35, 50, 30)).shape
        torch.Size([1, 2, 35, 50, 30])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        base_channels: int = 64,
        num_levels: int = 4,
        max_channels: int | None = None,
        full_resolution_channels: int = 0,
        deep_supervision: int = 0,
        spatial_dims: int = 2,
        level_strides: Sequence[Sequence[int]] | None = None,
        norm: str | Sequence = "batch",
    ) -> None:
        super().__init__()
        if not 0 <= deep_supervision < max(num_levels, 1):
            raise ConfigError(
                f"deep_supervision is {deep_supervision}; expected 0 to {num_levels - 1}, because the network has "
                f"{num_levels} levels."
            )
        if full_resolution_channels < 0:
            raise ConfigError(f"full_resolution_channels is {full_resolution_channels}; expected 0 or more.")
        if min(in_channels, out_channels, base_channels, num_levels) < 1:
            raise ConfigError(
                f"in_channels {in_channels}, out_channels {out_channels}, base_channels {base_channels} and num_levels "
                f"{num_levels} must all be at least 1."
            )
        widths = [min(base_channels * 2**level, max_channels or 2**31) for level in range(num_levels)]
        strides = strides_of_levels(spatial_dims, num_levels, level_strides)
        self.divisors = [math.prod(of_axis) for of_axis in zip(*strides, strict=True)]
        full = full_resolution_channels
        conv = Conv["conv", spatial_dims]
        self.stem = (
            nn.Sequential(*_conv(in_channels, full, norm, spatial_dims), *_conv(full, full, norm, spatial_dims))
            if full
            else None
        )
        self.head = (
            nn.Sequential(*_conv(2 * full, full, norm, spatial_dims), conv(full, out_channels, 1)) if full else None
        )
        self.encoder = down_sampling_blocks(full or in_channels, widths, norm=norm, strides=strides)
        self.decoder = nn.ModuleList()
        for level in reversed(range(num_levels)):
            inputs = widths[level] * (1 if level == num_levels - 1 else 2)
            outputs = widths[level - 1] if level else full or out_channels
            bias = level == 0 and not full
            block: list[nn.Module] = [
                nn.Identity(),  # placeholder that keeps the parameter names of existing checkpoints
                UpsampledConv2d(inputs, outputs, bias=bias)
                if spatial_dims == 2
                else UpsampledConv3d(inputs, outputs, bias=bias, scale=strides[level]),
            ]
            if level or full:
                block += [norm_layer(norm, spatial_dims, outputs), nn.ReLU(inplace=True)]
            self.decoder.append(nn.Sequential(*block))
        # finest first; without deep supervision there are none, and checkpoints keep their names
        self.deep_heads = nn.ModuleList(conv(widths[level], out_channels, 1) for level in range(deep_supervision))
        self.deep_mode = {2: "bilinear", 3: "trilinear"}[spatial_dims]

    def forward(self, x: Tensor) -> Tensor:
        """Map slices (B, C, H, W) to logits (B, K, H, W); with ``spatial_dims`` 3, volumes (B, C, H, W, D).

        In training with ``deep_supervision`` n, return a list of 1 + n logits of this size, those of the last level
        first. Logits of coarser levels are upsampled to the input's size, so that small regions stay in the label map
        [ours].
        """
        size: list[int] = []
        before: list[int] = []
        padding: list[int] = []  # of the last axis first
        for axis, divisor in enumerate(self.divisors):
            size.append(x.shape[2 + axis])
            pad = -size[axis] % divisor
            before.append(pad // 2)
            padding = [before[axis], pad - before[axis]] + padding  # noqa: RUF005 - TorchScript cannot unpack
        x = F.pad(x, padding)  # unconditional, so that an exported graph accepts every size
        padded = x.shape[2:]
        stem = x if self.stem is None else self.stem(x)
        x = stem
        skips: list[Tensor] = []
        levels: list[Tensor] = []
        for down in self.encoder:
            x = down(x)
            skips.append(x)
        for level, up in enumerate(self.decoder):
            x = up(x if level == 0 else torch.cat([x, skips[-1 - level]], dim=1))
            if self.training:
                levels.append(x)  # coarsest first
        if self.head is not None:
            x = self.head(torch.cat([x, stem], dim=1))
        logits = _cropped(x, before, size)
        # a script has one type of output, and does not train
        if not torch.jit.is_scripting() and self.training and len(self.deep_heads):
            inner = [head(y) for head, y in zip(self.deep_heads, levels[-2::-1], strict=False)]
            whole = [F.interpolate(y, padded, mode=self.deep_mode) for y in inner]
            return [logits, *(_cropped(y, before, size) for y in whole)]  # type: ignore
        return logits


class SegANSegmentors(nn.Module):
    """One independent segmentor per class: with one critic per class, the K pairs of S1-1C.

    The loss over ``SegANCritics`` is the mean over classes, and each term depends on one pair only. The pairs therefore
    train independently although they share a trainer. See Xue et al. (2018), Section 3.1.

    Args:
        in_channels: number of modalities C.
        out_channels: number of classes K, and of segmentors.
        **settings: other arguments of each ``SegANSegmentor``.

    Examples:
        >>> SegANSegmentors(in_channels=3, out_channels=2, base_channels=8)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 2, 32, 32])
    """

    def __init__(self, in_channels: int, out_channels: int, **settings: Any) -> None:
        super().__init__()
        one: dict[str, Any] = {"in_channels": in_channels, "out_channels": 1, **settings}
        self.segmentors = nn.ModuleList(SegANSegmentor(**one) for _ in range(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map slices (B, C, H, W) to logits (B, K, H, W), or to a list as ``SegANSegmentor`` does."""
        logits = [segmentor(x) for segmentor in self.segmentors]
        if not torch.jit.is_scripting() and isinstance(logits[0], list):
            return [torch.cat(level, dim=1) for level in zip(*logits, strict=True)]  # type: ignore
        return torch.cat(logits, dim=1)
