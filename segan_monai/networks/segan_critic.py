# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Critics of SegAN: Xue et al. (2018), Section 2.2 and Fig. 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm

from segan_monai.errors import ConfigError
from segan_monai.networks.level_strides import strides_of_levels
from segan_monai.networks.segan import down_sampling_blocks

INPUTS = ("multiply", "concat")


class SegANCritic(nn.Module):
    """Critic C: an encoder of down-sampling blocks that returns the features of every layer.

    Args:
        in_channels: number of channels of a masked image.
        base_channels: width of the first block; each following block doubles it (paper: 64).
        num_levels: number of down-sampling blocks (paper: 3).
        norm: norm layers of blocks from the second on, as in MONAI, see ``norm_layer``; True for batch norm (paper),
            False for none.
        score: whether to return one real-or-fake score per image instead of features: the discriminator of a GAN,
            against which the paper argues (Section 1) [ours: mean over the plane, then a linear layer].
        patch_score: whether a 1x1 convolution on the last block scores every patch, see ``SegANCritics.patch_scores``.
        spectral_norm: whether to divide each weight by its largest singular value (Miyato et al. (2018)), instead of
            clamping it.
        spatial_dims: 2 for slices, 3 for volumes (B, C, H, W, D).
        level_strides: see ``SegANSegmentor``.

    Raises:
        ConfigError: if a count is not positive, or ``level_strides`` or ``norm`` does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        base_channels: int = 64,
        num_levels: int = 3,
        norm: bool | str | Sequence = True,
        score: bool = False,
        patch_score: bool = False,
        spectral_norm: bool = False,
        spatial_dims: int = 2,
        level_strides: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if min(in_channels, base_channels, num_levels) < 1:
            raise ConfigError(
                f"in_channels {in_channels}, base_channels {base_channels} and num_levels {num_levels} of the critic "
                "must all be at least 1."
            )
        widths = [base_channels * 2**level for level in range(num_levels)]
        strides = strides_of_levels(spatial_dims, num_levels, level_strides)
        named = ("batch" if norm else None) if isinstance(norm, bool) else norm
        self.encoder = down_sampling_blocks(in_channels, widths, named, strides)
        self.score = nn.Linear(widths[-1], 1) if score else None
        self.patch_score = Conv["conv", spatial_dims](widths[-1], 1, 1) if patch_score else None
        for layer in [*self.modules()] if spectral_norm else []:
            if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
                with_spectral_norm(layer)

    def forward(self, masked_image: Tensor) -> list[Tensor]:
        """Return the features of all layers: the masked image (B, C, H, W) as layer 0, then each block's output.

        With ``score``, return the score (B, 1) as the only layer.
        """
        features = [masked_image]
        for block in self.encoder:
            features.append(block(features[-1]))
        return (
            features if self.score is None else [self.score(features[-1].mean(dim=tuple(range(2, masked_image.ndim))))]
        )


class SegANCritics(nn.Module):
    """Critics for K classes, separate or joint: Xue et al. (2018), Section 3.1.

    Args:
        in_channels: number of modalities C.
        num_classes: number of classes K.
        base_channels: see ``SegANCritic``.
        num_levels: see ``SegANCritic``.
        norm: see ``SegANCritic``.
        joint: False for one critic per class on C channels (S3-3C, the default); True for one critic on all K masked
            images, concatenated to K * C channels (S3-1C).
        score: see ``SegANCritic``; for ``RealOrFakeLoss``.
        patch_score: see ``SegANCritic``; for ``PatchScoreLoss``.
        spectral_norm: see ``SegANCritic``.
        input: ``multiply`` for the image times the mask, as in the paper, or ``concat`` for image and mask as separate
            channels (Tang et al. (2020), SegAN-CAT), so that the critic also sees the surroundings of the mask. A
            critic then has C + 1 channels, a joint one C + K.
        spatial_dims: see ``SegANCritic``.
        level_strides: see ``SegANSegmentor``.

    Raises:
        ConfigError: if a count is not positive, or the input is unknown.

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
        norm: bool | str | Sequence = True,
        joint: bool = False,
        score: bool = False,
        patch_score: bool = False,
        spectral_norm: bool = False,
        input: str = "multiply",
        spatial_dims: int = 2,
        level_strides: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if input not in INPUTS:
            raise ConfigError(f"critic_input is {input!r}; expected {' or '.join(map(repr, INPUTS))}.")
        self.joint = joint
        self.input = input
        masks = num_classes if joint else 1
        channels = in_channels * masks if input == "multiply" else in_channels + masks
        self.critics = nn.ModuleList(
            SegANCritic(
                channels,
                base_channels,
                num_levels,
                norm,
                score,
                patch_score,
                spectral_norm,
                spatial_dims,
                level_strides,
            )
            for _ in range(1 if joint else num_classes)
        )

    def forward(self, image: Tensor, label_map: Tensor) -> list[list[Tensor]]:
        """Combine the image with the mask of each class and return the critics' features.

        Args:
            image: (B, C, H, W[, D]).
            label_map: (B, K, H, W[, D]), probabilities or 0/1, with K as given at construction.

        Returns:
            For each critic, the list of its features; layer 0 (the masked image) first.

        Raises:
            ConfigError: if the number of classes does not match the number of critics.
        """
        masks = label_map.split(1, dim=1)
        if self.input == "concat":
            inputs = [torch.cat([image, *part], dim=1) for part in ([masks] if self.joint else zip(masks, strict=True))]
        else:
            inputs = [image * mask for mask in masks]
            inputs = [torch.cat(inputs, dim=1)] if self.joint else inputs
        if len(inputs) != len(self.critics):
            raise ConfigError(
                f"label map has {label_map.shape[1]} classes; expected {len(self.critics)}, one per critic."
            )
        return [critic(x) for critic, x in zip(self.critics, inputs, strict=True)]

    def patch_scores(self, features: list[list[Tensor]]) -> list[Tensor]:
        """Return the score of each patch from the features of ``forward``, one tensor (B, 1, h, w[, d]) per critic.

        Raises:
            ConfigError: if the critics were built without ``patch_score``.
        """
        scores = []
        for critic, layers in zip(self.critics, features, strict=True):
            head: nn.Module | None = critic.patch_score  # type: ignore[assignment]
            if head is None:
                raise ConfigError("the critics have no patch scores. Set patch_score of SegANCritics to true.")
            scores.append(head(layers[-1]))
        return scores
