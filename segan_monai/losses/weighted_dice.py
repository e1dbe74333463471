# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The segmentation loss of adversarial normalization: one Dice of all classes together, each with its weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks import one_hot
from torch import Tensor, nn

from segan_monai.errors import ConfigError


class WeightedDiceLoss(nn.Module):
    """Weighted Dice loss (Delisle et al. 2019, eq. 2).

    ``1 - (eps + 2 sum_c w_c sum_v s_vc y_vc) / (eps + sum_c w_c sum_v (s_vc + y_vc))`` with the softmax s and the
    one-hot label y: one ratio of sums over classes and voxels, not a mean of one Dice a class.

    Args:
        weights: w_c of each class that counts; None for 1.
        include_background: whether class 0 counts [ours: it does not; it would be most of both sums].
        batch: sum over the voxels of the whole batch [ours; the paper's sum is over samples]: a patch without a class
            then still says that the class is not there. False: the mean over samples of one ratio each.
        epsilon: small constant against division by zero.

    Raises:
        ConfigError: if the number of weights is not that of the classes that count.

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
            label: (B, 1, ...), whole numbers 0 to K.
        """
        first = 0 if self.include_background else 1
        probability = logits.float().softmax(dim=1)[:, first:].flatten(2)
        truth = one_hot(label, logits.shape[1], dtype=probability.dtype)[:, first:].flatten(2)
        weights = [1.0] * probability.shape[1] if self.weights is None else self.weights
        if len(weights) != probability.shape[1]:
            raise ConfigError(
                f"{len(weights)} weights for {probability.shape[1]} classes that count; give one a class."
            )
        factors = torch.tensor(weights, dtype=probability.dtype, device=probability.device)
        common = (probability * truth).sum(dim=2) @ factors
        total = (probability.sum(dim=2) + truth.sum(dim=2)) @ factors
        if self.batch:
            common, total = common.sum(), total.sum()
        return (1 - (self.epsilon + 2 * common) / (self.epsilon + total)).mean()
