# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Domain discriminator of adversarial normalization: Delisle et al. (2020), Section 2."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.layers.factories import Conv, Dropout
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.networks.norm import norm_layer


class DomainDiscriminator(nn.Module):
    """DCGAN-like discriminator D from the authors' code: strided 3x3x3 convolutions, then one logit per class.

    Classes 0 to K - 1 are the domains of raw images; class K is "generated". Global average pooling before the linear
    layer accepts patches of any size [ours]. To use MONAI's 3-D ResNet, which the paper cites, set in the config
    ``{"_target_": "resnet10", "spatial_dims": 3, "n_input_channels": 1, "num_classes": K + 1}``.

    Args:
        num_domains: number of domains K, at least 1.
        in_channels: number of image channels.
        channels: width of each block; each block halves the patch (code: 16, 32, 64, 128).
        dropout: dropout probability in every block (code: 0.25).
        spatial_dims: 2 or 3.
        norm: normalization from the second block on, as in MONAI (code: batch); None for none.

    Raises:
        ConfigError: if ``num_domains`` is below 1 or ``channels`` is empty.

    Examples:
        >>> DomainDiscriminator(num_domains=2)(torch.rand(4, 1, 32, 20, 17)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        num_domains: int,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32, 64, 128),
        dropout: float = 0.25,
        spatial_dims: int = 3,
        norm: str | Sequence | None = "batch",
    ) -> None:
        super().__init__()
        if num_domains < 1 or not channels:
            raise ConfigError(f"num_domains is {num_domains} and channels {channels}: expected at least one of each.")
        blocks: list[nn.Module] = []
        inputs = in_channels
        for level, width in enumerate(channels):
            blocks.append(
                Conv["conv", spatial_dims](inputs, width, 3, stride=2, padding=1, bias=level == 0 or norm is None)
            )
            if level and norm is not None:
                blocks.append(norm_layer(norm, spatial_dims, width))
            blocks += [nn.LeakyReLU(0.2), Dropout["dropout", spatial_dims](dropout)]
            inputs = width
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, num_domains + 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, C, H, W[, D]) to logits (B, K + 1)."""
        return self.classifier(self.features(image).flatten(2).mean(dim=2))
