# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""ResNet encoders with a U-Net or FCN decoder, as used by L-SNet and its baselines: Xie et al. (2021)."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from monai.networks.nets.flexible_unet import UNetDecoder
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.networks.attention_decoder import GatedUpCat
from segan_monai.networks.weights import read_checkpoint

_LAYERS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}

# Minimum width of a decoder level; 16 is the last level of the published network. With only 4 channels before the last
# convolution, training can collapse to an output where no probability exceeds that of the bias.
_LEAST_WIDTH = 16


class ResNetEncoderLevels(ResNet):
    """MONAI's 2-D ResNet, returning the features of every level.

    Args:
        in_channels: number of image channels C.
        depth: 18 or 34.
        base_channels: width of the first level (published network: 64).
        weights: file with a torchvision state dictionary, such as ``resnet18-f37072fd.pth`` (ImageNet). Requires 64
            base channels. If C is not 3, each channel gets the mean weight over the colours. None for random weights.

    Raises:
        ConfigError: if the depth is unknown or the weights do not fit.
    """

    def __init__(
        self, in_channels: int, depth: int = 18, base_channels: int = 64, weights: str | Path | None = None
    ) -> None:
        if depth not in _LAYERS:
            raise ConfigError(f"ResNet depth is {depth}; expected one of {', '.join(map(str, _LAYERS))}.")
        widths = [base_channels * 2**level for level in range(4)]
        super().__init__(
            "basic",
            _LAYERS[depth],
            widths,
            spatial_dims=2,
            n_input_channels=in_channels,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=False,
        )
        self.channels = [in_channels, base_channels, *widths]
        if weights:
            self._load(weights, in_channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to six levels: the input, then five of shape (B, ``channels[i]``, H / 2^i, W / 2^i)."""
        levels = [x, self.act(self.bn1(self.conv1(x)))]
        levels.append(self.layer1(self.maxpool(levels[-1])))
        levels.append(self.layer2(levels[-1]))  # unrolled, because TorchScript cannot compile the loop
        levels.append(self.layer3(levels[-1]))
        levels.append(self.layer4(levels[-1]))
        return levels

    def _load(self, file: str | Path, in_channels: int) -> None:
        content = read_checkpoint(file)
        found = {name: v for name, v in content.items() if isinstance(v, Tensor) and not str(name).startswith("fc.")}
        if in_channels != 3 and "conv1.weight" in found:
            mean = found["conv1.weight"].mean(1, keepdim=True)
            found["conv1.weight"] = mean.expand(-1, in_channels, -1, -1) * (3 / in_channels)
        own = self.state_dict()
        wrong = [
            name
            for name in sorted(own.keys() | found.keys())
            if name not in own or name not in found or own[name].shape != found[name].shape
        ]
        if wrong:
            raise ConfigError(
                f"{file}: weights of another ResNet: {len(wrong)} of {len(own)} differ, first: {wrong[0]}. Expected a "
                "torchvision state dictionary of the same depth; it requires 64 base channels."
            )
        self.load_state_dict(found)


class FCNDecoder(nn.Module):
    """FCN decoder of Long et al. (2015): sums the levels from coarse to fine, each after a 1x1 convolution.

    The output has a quarter of the input's resolution. The decoder is linear, so a 1x1 convolution of its output equals
    FCN's sum of score maps. It has one more skip connection than FCN-8s, because L-SNet's heads work at that
    resolution [ours].

    Args:
        channels: number of channels of the input and each level, from ``ResNetEncoderLevels``.
        out_channels: number of output channels.
    """

    def __init__(self, channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, out_channels, 1) for width in channels[:1:-1])

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map the encoder's levels to (B, ``out_channels``, H / 4, W / 4)."""
        result: Tensor | None = None
        for index, convolution in enumerate(self.lateral):
            level = levels[-1 - index]
            score = convolution(level)
            if result is not None:
                score = score + F.interpolate(result, size=level.shape[2:], mode="bilinear", align_corners=False)
            result = score
        assert result is not None
        return result


class ResNetPyramid(nn.Module):
    """Encoder and decoder without a head.

    Inputs of any size are accepted: they are zero-padded at the bottom and right to multiples of 32, and the result is
    cropped.

    Args:
        in_channels: number of image channels C.
        depth: ResNet depth, 18 or 34.
        base_channels: width of the encoder's first level. The U-Net decoder's levels have 4, 2, 1, 1/2 and 1/4 times
            this width, but at least 16 [ours].
        structure: ``unet`` (decoder of MONAI's ``FlexibleUNet``), ``attention_unet`` (the same with attention gates) or
            ``fcn``.
        stride: output stride: 4 (for the heads of a localization network), or 1 (not ``fcn``).
        weights: see ``ResNetEncoderLevels``.

    Raises:
        ConfigError: if the structure is unknown.
    """

    coarsest = 32  # stride of the last level
    __constants__ = ("coarsest",)

    def __init__(
        self,
        in_channels: int,
        depth: int = 18,
        base_channels: int = 64,
        structure: str = "unet",
        stride: int = 4,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.encoder = ResNetEncoderLevels(in_channels, depth, base_channels, weights)
        if structure == "fcn":
            self.stride, self.out_channels = 4, base_channels
            self.decoder: nn.Module = FCNDecoder(self.encoder.channels, base_channels)
        elif structure in ("unet", "attention_unet"):
            widths = [max(_LEAST_WIDTH, int(base_channels * factor)) for factor in (4, 2, 1, 0.5, 0.25)]
            decoder = UNetDecoder(
                spatial_dims=2,
                encoder_channels=self.encoder.channels,
                decoder_channels=widths,
                act=("relu", {"inplace": True}),
                norm="batch",
                dropout=0.0,
                bias=False,
                upsample="nontrainable",
                pre_conv=None,
                interp_mode="nearest",
                align_corners=None,
                is_pad=False,
            )
            steps = {1: 5, 4: 3}[stride]
            decoder.blocks = decoder.blocks[:steps]
            if structure == "attention_unet":
                skips = self.encoder.channels[-2:0:-1]  # the input itself is no skip connection
                coarse = [self.encoder.channels[-1], *widths]
                for level, (above, beside) in enumerate(zip(coarse[:steps], skips, strict=False)):
                    decoder.blocks[level] = GatedUpCat(decoder.blocks[level], above, beside)  # type: ignore[arg-type]
            self.decoder = decoder
            self.stride, self.out_channels = stride, widths[steps - 1]
        else:
            raise ConfigError(f"structure is '{structure}'; expected 'unet', 'attention_unet' or 'fcn'.")

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to features (B, ``out_channels``, ceil(H / stride), ceil(W / stride))."""
        height, width = x.shape[2:]
        x = F.pad(x, [0, -width % self.coarsest, 0, -height % self.coarsest])
        features = self.decoder(self.encoder(x))
        return features[..., : -(-height // self.stride), : -(-width // self.stride)]


class ResNetSegmentor(nn.Module):
    """Segmentation network with a ResNet encoder: S-Net of L-SNet, or a one-stage U-Net or FCN baseline.

    With depth 18, 3 input channels and 1 output channel, the U-Net has the 14.3 M parameters given in Table 3 of Xie et
    al. (2021).

    Args:
        in_channels: number of image channels C.
        out_channels: number of classes K, one logit each.
        depth: 18 or 34 (paper: 34).
        base_channels: width of the encoder's first level (paper: 64).
        structure: ``unet``, ``attention_unet`` or ``fcn``.
        weights: see ``ResNetEncoderLevels``.

    Examples:
        >>> ResNetSegmentor(1, 2, base_channels=8)(torch.zeros(2, 1, 50, 70)).shape
        torch.Size([2, 2, 50, 70])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        depth: int = 34,
        base_channels: int = 64,
        structure: str = "unet",
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.pyramid = ResNetPyramid(in_channels, depth, base_channels, structure, stride=1, weights=weights)
        kernel = 1 if structure == "fcn" else 3
        self.head = nn.Conv2d(self.pyramid.out_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map slices (B, C, H, W) to logits (B, K, H, W)."""
        logits = self.head(self.pyramid(x))
        if self.pyramid.stride == 1:
            return logits
        factor = self.pyramid.stride
        size = [factor * logits.shape[2], factor * logits.shape[3]]
        full = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return full[..., : x.shape[2], : x.shape[3]]
