# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The two players of SegAN (Xue et al. 2017, section 2.2 and Fig. 1): a segmentor, and critics for K classes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.networks.upsampled_convolution import UpsampledConv2d


def _down(in_channels: int, out_channels: int, norm: bool) -> nn.Sequential:
    """Halve the plane: convolution 4x4 with stride 2, batch norm, leaky ReLU 0.2."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True))


def _conv(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Convolution 3x3, batch norm, leaky ReLU 0.2."""
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.2, inplace=True),
    ]


def _encoder(in_channels: int, widths: list[int], norm: bool) -> nn.ModuleList:
    """The down-sampling blocks that segmentor and critic have in common; the first one has no batch norm."""
    inputs = [in_channels, *widths[:-1]]
    blocks = zip(inputs, widths, strict=True)
    return nn.ModuleList(_down(i, o, norm and level > 0) for level, (i, o) in enumerate(blocks))


class SegANSegmentor(nn.Module):
    """Fully convolutional encoder-decoder S: slices in, one logit map a class out.

    Every level halves the plane by a strided 4x4 convolution; the decoder resizes by 2 (bilinear), convolves 3x3, and
    takes the encoder's features of the same size by concatenation. Planes whose sides are no multiples of
    ``2 ** num_levels`` are padded with zeros on both sides and the logits cropped back, so every size works.

    Args:
        in_channels: modalities C.
        out_channels: classes K; they may overlap, each has a sigmoid of its own.
        base_channels: width of the first level; level i has ``base_channels * 2 ** i`` (paper: 64).
        num_levels: down-samplings (paper: 4); more make the deeper segmentor of the skin-lesion code.
        max_channels: no level is wider than this (paper: no bound is needed, 512 at the fourth level).
        full_resolution_channels: 0 as in the paper, whose finest features have half the resolution of the image. Else
            two 3x3 convolutions of this width stand before the first level, and their features are joined with the
            decoder's before the last one [ours: structures a few pixels thin, as the hippocampus, gain from it].

    Raises:
        ConfigError: if a count is not positive.

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
    ) -> None:
        super().__init__()
        if full_resolution_channels < 0:
            raise ConfigError(f"full_resolution_channels is {full_resolution_channels}, expected 0 or more.")
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
        self.encoder = _encoder(full or in_channels, widths, norm=True)
        self.decoder = nn.ModuleList()
        for level in reversed(range(num_levels)):
            inputs = widths[level] * (1 if level == num_levels - 1 else 2)
            outputs = widths[level - 1] if level else full or out_channels
            block: list[nn.Module] = [
                nn.Identity(),  # the upsampling once stood here: the names of weights count from it
                UpsampledConv2d(inputs, outputs, bias=level == 0 and not full),
            ]
            if level or full:
                block += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            self.decoder.append(nn.Sequential(*block))

    def forward(self, x: Tensor) -> Tensor:
        """Map slices (B, C, H, W) to logits (B, K, H, W)."""
        height, width = x.shape[-2], x.shape[-1]
        pad_h, pad_w = -height % self.divisor, -width % self.divisor
        top, left = pad_h // 2, pad_w // 2
        x = F.pad(x, [left, pad_w - left, top, pad_h - top])  # always, so that an exported graph takes every plane
        stem = x if self.stem is None else self.stem(x)
        x = stem
        skips: list[Tensor] = []
        for down in self.encoder:
            x = down(x)
            skips.append(x)
        for level, up in enumerate(self.decoder):
            x = up(x if level == 0 else torch.cat([x, skips[-1 - level]], dim=1))
        if self.head is not None:
            x = self.head(torch.cat([x, stem], dim=1))
        return x[..., top : top + height, left : left + width]


class SegANSegmentors(nn.Module):
    """One segmentor a class, side by side: with one critic a class they are the K independent pairs of S1-1C.

    The loss of `SegANCritics` is the mean over classes and every term of it reaches one pair only, so the pairs train
    apart although they share a trainer (paper, section 3.1).

    Args:
        in_channels: modalities C.
        out_channels: classes K, the number of segmentors.
        **settings: of each `SegANSegmentor`.

    Examples:
        >>> SegANSegmentors(in_channels=3, out_channels=2, base_channels=8)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 2, 32, 32])
    """

    def __init__(self, in_channels: int, out_channels: int, **settings: int | None) -> None:
        super().__init__()
        one: dict[str, Any] = {"in_channels": in_channels, "out_channels": 1, **settings}
        self.segmentors = nn.ModuleList(SegANSegmentor(**one) for _ in range(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map slices (B, C, H, W) to logits (B, K, H, W)."""
        return torch.cat([segmentor(x) for segmentor in self.segmentors], dim=1)


class SegANCritic(nn.Module):
    """Critic C: the encoder's structure with three down-sampling blocks; its output is the list of its features.

    Args:
        in_channels: channels of a masked image.
        base_channels: width of the first block, doubled from block to block (paper: 64).
        num_levels: down-sampling blocks (paper: 3).
        norm: batch norm from the second block on (paper), or none.

    Raises:
        ConfigError: if a count is not positive.
    """

    def __init__(self, in_channels: int, base_channels: int = 64, num_levels: int = 3, norm: bool = True) -> None:
        super().__init__()
        if min(in_channels, base_channels, num_levels) < 1:
            raise ConfigError(
                f"in_channels {in_channels}, base_channels {base_channels} and num_levels {num_levels} of the critic "
                "must all be at least 1."
            )
        self.encoder = _encoder(in_channels, [base_channels * 2**level for level in range(num_levels)], norm)

    def forward(self, masked_image: Tensor) -> list[Tensor]:
        """Return layer 0, which is the masked image (B, C, H, W) itself, and the output of each block."""
        features = [masked_image]
        for block in self.encoder:
            features.append(block(features[-1]))
        return features


class SegANCritics(nn.Module):
    """Critics for K classes (paper, section 3.1): one critic a class, or one critic for all of them.

    Args:
        in_channels: modalities C.
        num_classes: label classes K.
        base_channels: see `SegANCritic`.
        num_levels: see `SegANCritic`.
        norm: see `SegANCritic`.
        joint: False for K critics on C channels each (S3-3C, the default); True for one critic on all K masked images,
            concatenated to K * C channels (S3-1C).

    Examples:
        >>> critics = SegANCritics(in_channels=3, num_classes=2, base_channels=8)
        >>> features = critics(torch.rand(4, 3, 32, 32), torch.ones(4, 2, 32, 32))
        >>> len(features), [tuple(f.shape) for f in features[0]]
        (2, [(4, 3, 32, 32), (4, 8, 16, 16), (4, 16, 8, 8), (4, 32, 4, 4)])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        base_channels: int = 64,
        num_levels: int = 3,
        norm: bool = True,
        joint: bool = False,
    ) -> None:
        super().__init__()
        self.joint = joint
        count, channels = (1, in_channels * num_classes) if joint else (num_classes, in_channels)
        self.critics = nn.ModuleList(SegANCritic(channels, base_channels, num_levels, norm) for _ in range(count))

    def forward(self, image: Tensor, label_map: Tensor) -> list[list[Tensor]]:
        """Mask the image by each class and look at the result.

        Args:
            image: (B, C, H, W).
            label_map: (B, K, H, W), probabilities or 0/1, K as given at construction.

        Returns:
            For each critic the list of its features, layer 0 (the masked image) first.
        """
        masked = [image * mask for mask in label_map.split(1, dim=1)]
        if self.joint:
            masked = [torch.cat(masked, dim=1)]
        if len(masked) != len(self.critics):
            raise ConfigError(f"label map has {label_map.shape[1]} classes, there are critics for {len(self.critics)}.")
        return [critic(x) for critic, x in zip(self.critics, masked, strict=True)]
