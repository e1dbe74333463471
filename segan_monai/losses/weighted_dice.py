# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Weighted Dice loss, the segmentation loss of adversarial normalization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks import one_hot
from torch import Tensor, nn

from segan_monai.errors import ConfigError


class WeightedDiceLoss(nn.Module):
    """Weighted Dice loss: Delisle et al. (2020), Eq. 2.

    ``1 - (eps + 2 sum_c w_c sum_v s_vc y_vc) / (eps + sum_c w_c sum_v (s_vc + y_vc))`` with softmax s and one-hot label
    y. This is one ratio of sums over classes and voxels, not a mean over per-class Dice losses.

    Args:
        weights: weight w_c of each included class; None for 1.
        include_background: whether to include class 0 [ours: False; background would dominate both sums].
        batch: if True, sum over the voxels of the whole batch [ours; the paper sums over samples], so that patches
            without a class still contribute to its term. If False, average one ratio per sample.
        epsilon: small constant eps that prevents division by zero.

    Raises:
        ConfigError: if the number of weights is not the number of included classes.

    Examples:
        >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])  # two classes, two voxels, softmax 1/2 everywhere
        >>> WeightedDiceLoss(epsilon=0.0)(logits, torch.tensor([[[0, 1]]]))
        tensor(0.5000)
    """

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        include_background: bool = False,
        batch: bool = True,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.weights = weights
        self.include_background = include_background
        self.batch = batch
        self.epsilon = epsilon

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar in [0, 1].

        Args:
            logits: (B, 1 + K, ...), background first.
            label: (B, 1, ...), integers 0 to K.
        """
        first = 0 if self.include_background else 1
        probability = logits.float().softmax(dim=1)[:, first:].flatten(2)
        truth = one_hot(label, logits.shape[1], dtype=probability.dtype)[:, first:].flatten(2)
        weights = [1.0] * probability.shape[1] if self.weights is None else self.weights
        if len(weights) != probability.shape[1]:
            raise ConfigError(
                f"{len(weights)} weights for {probability.shape[1]} included classes; give one weight per class."
            )
        factors = torch.tensor(weights, dtype=probability.dtype).to(probability.device, non_blocking=True)
        common = (probability * truth).sum(dim=2) @ factors
        total = (probability.sum(dim=2) + truth.sum(dim=2)) @ factors
        if self.batch:
            common, total = common.sum(), total.sum()
        return (1 - (self.epsilon + 2 * common) / (self.epsilon + total)).mean()
