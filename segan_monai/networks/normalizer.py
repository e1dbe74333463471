# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A normalizer in front of a segmentor, trained as one (Delisle et al. 2019, section 2 and Fig. 2)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NormalizerSegmentor(nn.Module):
    """Generator G, which normalizes an image of any domain, and segmentor S, which sees G(x) alone.

    In training it gives logits and normalized image, both of one pass through G; in evaluation the logits alone, as
    export and servers expect it. `normalize` and `segment_and_normalize` reach the normalized image then. Neither needs
    to know the image's domain.

    Args:
        segmentor: S, images (B, C, H, W, D) to logits (B, 1 + K, H, W, D), background first; MONAI's 3-D U-Net.
        normalizer: G, images to images of the same shape; MONAI's 3-D U-Net. None leaves images as they are: the
            paper's baselines without adaptation (experiments 1 to 5).
        gain_and_offset: the normalizer network sees the image at half its resolution and gives 2 C channels, a and b,
            which are interpolated (trilinear): ``G(x) = (1 + a) x + b`` [ours; False: the paper's, where the network
            gives the image itself]. Detail comes from the image and not through convolutions with stride, so images
            stay sharp and free of the checkerboard of transposed convolutions, at an eighth of the voxels.
        keep_background: voxels that are exactly 0 in every channel, which is what skull stripping leaves, stay 0
            [ours: the paper does not say; without it a discriminator tells images apart by their background].

    Examples:
        >>> network = NormalizerSegmentor(nn.Conv3d(1, 4, 1), normalizer=nn.Conv3d(1, 1, 1))
        >>> logits, normalized = network(torch.rand(2, 1, 8, 8, 8))
        >>> logits.shape[1], normalized.shape[1], network.eval()(torch.rand(2, 1, 8, 8, 8)).shape[1]
        (4, 1, 4)
    """

    def __init__(
        self,
        segmentor: nn.Module,
        normalizer: nn.Module | None = None,
        gain_and_offset: bool = False,
        keep_background: bool = True,
    ) -> None:
        super().__init__()
        self.normalizer = nn.Identity() if normalizer is None else normalizer
        self.segmentor = segmentor
        self.normalizes = normalizer is not None
        self.gain_and_offset = gain_and_offset and self.normalizes
        self.keep_background = keep_background

    def normalize(self, image: Tensor) -> Tensor:
        """Map images (B, C, H, W, D) to normalized images of the same shape."""
        if self.gain_and_offset:
            # whatever format convolutions leave it in, interpolation is fastest in this one
            coarse = self.normalizer(F.avg_pool3d(image, 2)).float().contiguous()
            fine = F.interpolate(coarse, size=image.shape[2:], mode="trilinear", align_corners=False)
            gain, offset = fine.chunk(2, dim=1)
            normalized = (1 + gain) * image + offset
        else:
            normalized = self.normalizer(image)
        if self.keep_background:
            normalized = normalized * (image != 0).any(dim=1, keepdim=True)
        return normalized

    def segment_and_normalize(self, image: Tensor) -> Tensor:
        """Map images (B, C, H, W, D) to (B, 1 + K + C, H, W, D): logits, then the normalized image."""
        normalized = self.normalize(image)
        return torch.cat([self.segmentor(normalized), normalized], dim=1)

    def forward(self, image: Tensor) -> Any:
        """Map images (B, C, H, W, D) to logits, in training to (logits, normalized image)."""
        normalized = self.normalize(image)
        logits = self.segmentor(normalized)
        if self.training and not torch.jit.is_scripting():
            return logits, normalized
        return logits

    def parameter_groups(self, normalizer_learning_rate: float) -> list[dict[str, Any]]:
        """Parameters for one optimizer of both, in which G has a learning rate of its own."""
        groups: list[dict[str, Any]] = [{"params": list(self.segmentor.parameters())}]
        if self.normalizes:
            groups.append({"params": list(self.normalizer.parameters()), "lr": normalizer_learning_rate})
        return groups


def kaiming_initialize(*networks: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers from He's normal distribution, biases 0 (paper, section 3.3).

    Args:
        *networks: changed in place.
    """
    for network in networks:
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
