# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The quality critic: a small network that looks at image and mask, and what it says of the mask."""

from __future__ import annotations

import math

import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from segan_monai.quality.signals import largest_part

FEATURES = (8, 16, 32, 64, 64, 8)
INSIDE, OUTSIDE = 1.0, -4.0
"""Logits of the truth inside and outside a mask before training: .73 and .02 [ours]."""
BATCH = 32


class CriticNetwork(nn.Module):
    """From slices of image and masks to the logit of each region's truth.

    As in QCResUNet (Qiu et al. 2024), the critic says where a mask is wrong, which gives it a target per voxel instead
    of one number per case. Its Dice follows from the truth that it expects. Before training, it trusts the mask [ours].

    Args:
        channels: C of the image.
        regions: K.
    """

    def __init__(self, channels: int, regions: int) -> None:
        super().__init__()
        norm = ("group", {"num_groups": 4})
        self.regions = regions
        self.network = BasicUNet(2, channels + regions, regions, FEATURES, norm=norm, upsample="nontrainable")
        self.trust = nn.Parameter(torch.full((regions, 1, 1), INSIDE - OUTSIDE))
        self.outside = nn.Parameter(torch.full((regions, 1, 1), OUTSIDE))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, S, S) of image and masks (N, C + K, S, S); S is a multiple of 16."""
        found: Tensor = self.network(x)
        return found + self.outside + self.trust * x[:, -self.regions :]


def expected_truth(network: nn.Module, image: Tensor, masks: Tensor) -> Tensor:
    """Return the probability (D, K, S, S) that each voxel of a stack is in each region."""
    network.eval()
    with torch.inference_mode():
        parts = zip(image.split(BATCH), masks.split(BATCH), strict=True)
        return torch.cat([network(torch.cat(part, 1)).sigmoid() for part in parts])


def critic_signals(network: nn.Module, image: Tensor, masks: Tensor, voxel_ml: float) -> list[dict[str, float]]:
    """Return the signals of each of the K regions of a stack.

    - ``critic_dice``: Dice of the mask with the truth that the critic expects, see ``soft_overlap``.
    - ``critic_precision``, ``critic_sensitivity``: the same for the share of the mask that is right, and of the
      expected truth that is in the mask.
    - ``largest_part``: share of the mask in its largest connected component.
    - ``log_ml``: logarithm of 0.1 plus the volume in ml.

    Args:
        network: a ``CriticNetwork``.
        image: (D, C, S, S).
        masks: (D, K, S, S), values from 0 to 1.
        voxel_ml: volume of a voxel of the stack.
    """
    truth = expected_truth(network, image, masks)
    found = []
    for index in range(masks.shape[1]):
        mask, expected = masks[:, index], truth[:, index]
        both, of_mask, of_truth = soft_overlap(mask, expected)
        found.append(
            {
                "critic_dice": (2 * both + 1) / (of_mask + of_truth + 1),
                "critic_precision": (both + 1) / (of_mask + 1),
                "critic_sensitivity": (both + 1) / (of_truth + 1),
                "largest_part": largest_part((mask > 0.5).numpy()),
                "log_ml": math.log(0.1 + of_mask * voxel_ml),
            }
        )
    return found


def soft_overlap(first: Tensor, second: Tensor) -> tuple[float, float, float]:
    """Return the voxels in both of two masks, in the first and in the second; the overlap of shares is the lesser.

    Examples:
        >>> soft_overlap(torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.5, 0.5, 1.0]))
        (1.0, 1.5, 2.0)
    """
    return float(torch.minimum(first, second).sum()), float(first.sum()), float(second.sum())


def dice_of(mask: Tensor, truth: Tensor) -> float:
    """Return the Dice of two masks with values from 0 to 1; 1 if both are empty."""
    both, of_mask, of_truth = soft_overlap(mask, truth)
    return 2 * both / (of_mask + of_truth) if of_mask + of_truth > 0 else 1.0
