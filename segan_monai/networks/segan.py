# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Segmentor of SegAN: Xue et al. (2018), Section 2.2 and Fig. 1."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.networks.upsampled_convolution import UpsampledConv2d


def _down(in_channels: int, out_channels: int, norm: bool) -> nn.Sequential:
    """Build a down-sampling block: 4x4 convolution with stride 2, batch norm, leaky ReLU 0.2."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True))


def _conv(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Build a block of 3x3 convolution, batch norm, leaky ReLU 0.2."""
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.2, inplace=True),
    ]


def down_sampling_blocks(in_channels: int, widths: list[int], norm: bool) -> nn.ModuleList:
    """Build the down-sampling blocks shared by segmentor and critic; the first one has no batch norm."""
    inputs = [in_channels, *widths[:-1]]
    blocks = zip(inputs, widths, strict=True)
    return nn.ModuleList(_down(i, o, norm and level > 0) for level, (i, o) in enumerate(blocks))


class SegANSegmentor(nn.Module):
    """Segmentor S: a fully convolutional encoder-decoder with one logit map per class.

    Each encoder level halves the plane with a strided 4x4 convolution. Each decoder level upsamples by 2 (bilinear),
    applies a 3x3 convolution, and concatenates the encoder features of the same size. Inputs of any size are accepted:
    they are zero-padded on both sides to multiples of ``2 ** num_levels``, and the logits are cropped back.

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

    Raises:
        ConfigError: if ``full_resolution_channels`` is negative, ``deep_supervision`` does not fit, or another count is
            not positive.

    Examples:
        >>> SegANSegmentor(in_channels=3, out_channels=3, base_channels=8)(torch.zeros(2, 3, 155, 161)).shape
        torch.Size([2, 3, 155, 161])
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
        self.divisor = 2**num_levels
        full = full_resolution_channels
        self.stem = nn.Sequential(*_conv(in_channels, full), *_conv(full, full)) if full else None
        self.head = nn.Sequential(*_conv(2 * full, full), nn.Conv2d(full, out_channels, 1)) if full else None
        self.encoder = down_sampling_blocks(full or in_channels, widths, norm=True)
        self.decoder = nn.ModuleList()
        for level in reversed(range(num_levels)):
            inputs = widths[level] * (1 if level == num_levels - 1 else 2)
            outputs = widths[level - 1] if level else full or out_channels
            block: list[nn.Module] = [
                nn.Identity(),  # placeholder that keeps the parameter names of existing checkpoints
                UpsampledConv2d(inputs, outputs, bias=level == 0 and not full),
            ]
            if level or full:
                block += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            self.decoder.append(nn.Sequential(*block))
        # finest first; without deep supervision there are none, and checkpoints keep their names
        self.deep_heads = nn.ModuleList(nn.Conv2d(widths[level], out_channels, 1) for level in range(deep_supervision))

    def forward(self, x: Tensor) -> Tensor:
        """Map slices (B, C, H, W) to logits (B, K, H, W).

        In training with ``deep_supervision`` n, return a list of 1 + n logits of this size, those of the last level
        first. Logits of coarser levels are upsampled to the plane, so that small regions stay in the label map
        [ours].
        """
        height, width = x.shape[-2], x.shape[-1]
        pad_h, pad_w = -height % self.divisor, -width % self.divisor
        top, left = pad_h // 2, pad_w // 2
        x = F.pad(
            x, [left, pad_w - left, top, pad_h - top]
        )  # unconditional, so that an exported graph accepts every size
        padded_h, padded_w = x.shape[-2], x.shape[-1]
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
        logits = x[..., top : top + height, left : left + width]
        # a script has one type of output, and does not train
        if not torch.jit.is_scripting() and self.training and len(self.deep_heads):
            inner = [head(y) for head, y in zip(self.deep_heads, levels[-2::-1], strict=False)]
            planes = [F.interpolate(y, (padded_h, padded_w), mode="bilinear") for y in inner]
            return [logits, *(y[..., top : top + height, left : left + width] for y in planes)]  # type: ignore
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

    def __init__(self, in_channels: int, out_channels: int, **settings: int | None) -> None:
        super().__init__()
        one: dict[str, Any] = {"in_channels": in_channels, "out_channels": 1, **settings}
        self.segmentors = nn.ModuleList(SegANSegmentor(**one) for _ in range(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map slices (B, C, H, W) to logits (B, K, H, W), or to a list as ``SegANSegmentor`` does."""
        logits = [segmentor(x) for segmentor in self.segmentors]
        if not torch.jit.is_scripting() and isinstance(logits[0], list):
            return [torch.cat(level, dim=1) for level in zip(*logits, strict=True)]  # type: ignore
        return torch.cat(logits, dim=1)
