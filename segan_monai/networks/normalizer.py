# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Normalizer and segmentor in one network: Delisle et al. (2020), Section 2 and Fig. 2."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.errors import ConfigError

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class NormalizerSegmentor(nn.Module):
    """Generator G, which normalizes images of any domain, followed by segmentor S, which segments G(x).

    - In training mode it returns logits and normalized image, both from one pass through G.
    - In evaluation mode it returns the logits only, as export and servers expect. ``normalize`` and
      ``segment_and_normalize`` give access to the normalized image.

    Neither network needs to know the image's domain.

    Args:
        segmentor: network S, images (B, C, H, W, D) to logits (B, 1 + K, H, W, D), background first; for example
            MONAI's 3-D U-Net.
        normalizer: network G, images to images of the same shape; for example MONAI's 3-D U-Net. None skips
            normalization, as in the paper's baselines without adaptation (experiments 1 to 5).
        gain_and_offset: if True, ``G(x) = (1 + a) x + b`` [ours]. The normalizer network then processes the image at
            half resolution and returns 2 C channels, a and b, which are upsampled (trilinear). This keeps images sharp
            and free of checkerboard artefacts, at an eighth of the voxels. If False, the network returns the image
            itself, as in the paper.
        keep_background: keep voxels at 0 that are exactly 0 in every channel, as skull stripping leaves them [ours:
            not specified in the paper; otherwise the discriminator can distinguish images by their background].
        residual: if True, ``G(x) = x + normalizer(x)`` [ours]. It has no effect with ``gain_and_offset``.

    Examples:
        >>> network = NormalizerSegmentor(nn.Conv3d(1, 4, 1), normalizer=nn.Conv3d(1, 1, 1))
        >>> logits, normalized = network(torch.rand(2, 1, 8, 8, 8))
        >>> logits.shape[1], normalized.shape[1], network.eval()(torch.rand(2, 1, 8, 8, 8)).shape[1]
        (4, 1, 4)
    """

    has_softmax = True  # of the logits, for the mean of an ensemble

    def __init__(
        self,
        segmentor: nn.Module,
        normalizer: nn.Module | None = None,
        gain_and_offset: bool = False,
        keep_background: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.normalizer = nn.Identity() if normalizer is None else normalizer
        self.segmentor = segmentor
        self.normalizes = normalizer is not None
        self.gain_and_offset = gain_and_offset and self.normalizes
        self.keep_background = keep_background
        self.residual = residual and self.normalizes and not self.gain_and_offset

    def normalize(self, image: Tensor) -> Tensor:
        """Map images (B, C, H, W, D) to normalized images of the same shape."""
        if self.gain_and_offset:
            # trilinear interpolation is fastest on contiguous tensors
            coarse = self.normalizer(F.avg_pool3d(image, 2)).float().contiguous()
            fine = F.interpolate(coarse, size=image.shape[2:], mode="trilinear", align_corners=False)
            gain, offset = fine.chunk(2, dim=1)
            normalized = (1 + gain) * image + offset
        else:
            normalized = self.normalizer(image)
            if self.residual:
                normalized = image + normalized
        if self.keep_background:
            normalized = normalized * (image != 0).any(dim=1, keepdim=True)
        return normalized

    def segment_and_normalize(self, image: Tensor) -> Tensor:
        """Map images (B, C, H, W, D) to logits and normalized image, concatenated to (B, 1 + K + C, H, W, D)."""
        normalized = self.normalize(image)
        return torch.cat([self.segmentor(normalized), normalized], dim=1)

    def forward(self, image: Tensor) -> Any:
        """Map images (B, C, H, W, D) to logits; in training mode, to (logits, normalized image)."""
        normalized = self.normalize(image)
        logits = self.segmentor(normalized)
        if self.training and not torch.jit.is_scripting():
            return logits, normalized
        return logits

    def start_as_identity(self) -> None:
        """Set the last layer of the normalizer to zero, so that G(x) = x until the first step [ours].

        With He's initialization, the U-Net of the paper begins as noise with an error of several times the variance of
        its input. Without a normalizer, this does nothing.

        Raises:
            ConfigError: if the normalizer returns the image itself, without ``residual`` or ``gain_and_offset``, or
                does not end in a convolution.
        """
        if not self.normalizes:
            return
        if not (self.residual or self.gain_and_offset):
            raise ConfigError(
                "the normalizer predicts the image itself, so it cannot begin as the identity. Pass "
                "--normalizer_residual true or --gain_and_offset true; or pass --identity_start false, and let it "
                "learn the identity in --warm_up_epochs."
            )
        last = [module for module in self.normalizer.modules() if list(module.parameters(recurse=False))][-1]
        if not isinstance(last, _CONVOLUTIONS):
            raise ConfigError(
                f"the last layer of the normalizer is {type(last).__name__}; expected a convolution, which can be set "
                "to zero. Choose another network, or pass --identity_start false."
            )
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def parameter_groups(self, normalizer_learning_rate: float) -> list[dict[str, Any]]:
        """Return parameter groups for one optimizer of S and G, with a separate learning rate for G."""
        groups: list[dict[str, Any]] = [{"params": list(self.segmentor.parameters())}]
        if self.normalizes:
            groups.append({"params": list(self.normalizer.parameters()), "lr": normalizer_learning_rate})
        return groups


def kaiming_initialize(*networks: nn.Module) -> None:
    """Initialize convolutions and linear layers with He's normal distribution and zero biases.

    Each output has the variance 2 E[x^2] of its inputs x. An output of a transposed convolution has
    ``in_channels * kernel / stride`` inputs, which PyTorch's fan does not count: it would be the number of output
    channels times the kernel, and a last layer with one channel would begin with many times this variance.

    Source: Delisle et al. (2020), Section 3.3.

    Args:
        *networks: networks to initialize in place.
    """
    for network in networks:
        for module in network.modules():
            if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
                inputs = module.in_channels // module.groups * math.prod(module.kernel_size) / math.prod(module.stride)
                nn.init.normal_(module.weight, std=math.sqrt(2 / inputs))
            elif isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)
