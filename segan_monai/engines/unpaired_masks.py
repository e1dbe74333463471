# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Predicted and true masks of different images, made comparable for a critic."""

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor


class Unpaired(NamedTuple):
    """Unlabelled images with their predicted masks, and reference images with their true masks."""

    image: Tensor
    predicted: Tensor
    reference: Tensor
    true: Tensor


class UnpairedMasks:
    """Removes what would tell true masks from predicted ones although the shapes agree.

    - True masks have sharp outlines, predictions do not: true masks are blurred, and both get the same noise.
    - Labels may be known in part: what is unknown of a reference is hidden in a predicted mask, too. Else C would learn
      where labels are missing.

    Args:
        blur: standard deviation of the Gaussian blur of true masks, in pixels; 0 for none.
        noise: standard deviation of the Gaussian noise on true and predicted masks at first; 0 for none.
        device: device of the masks.
    """

    def __init__(self, blur: float, noise: float, device: torch.device) -> None:
        # once, because its length depends on a value for which the host would wait on a GPU in every step
        self.kernel: Tensor | None = gaussian_1d(torch.tensor(blur)).to(device) if blur else None
        self.noise = noise

    def __call__(
        self, predicted: Tensor, true: Tensor, known: Tensor | None, share_of_noise: float
    ) -> tuple[Tensor, Tensor]:
        """Return comparable predicted and true masks.

        Args:
            predicted: probabilities (B, K, H, W); they keep their gradient.
            true: label maps of other images (R, K, H, W), 0 or 1.
            known: 1 where these labels are known (R, K, H, W), else 0; None if all are.
            share_of_noise: between 1 at first and 0.
        """
        predicted = predicted.float()
        if self.kernel is not None:
            true = separable_filtering(true, [self.kernel] * (true.ndim - 2))
        if std := self.noise * share_of_noise:
            true = true + std * torch.randn_like(true)
            predicted = predicted + std * torch.randn_like(predicted)
        if known is not None:
            rows = torch.arange(len(predicted), device=known.device) % len(known)
            true, predicted = true * known, predicted * known[rows]
        return predicted, true
