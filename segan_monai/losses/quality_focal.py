# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Focal loss for soft targets, alone and with Dice: the map loss of L-SNet."""

from __future__ import annotations

import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from segan_monai.errors import ConfigError


class QualityFocalLoss(nn.Module):
    """Quality focal loss of logits and targets from 0 to 1: Li et al. (2020), Generalized focal loss, Eq. 3.

    ``|t - p|^gamma * BCE(p, t)``, with p the sigmoid of the logit; the mean over all elements.

    It is smallest, 0, at p = t. MONAI's ``FocalLoss`` is not: it weights the cross-entropy by a probability that is
    meant for targets of 0 and 1, so with t = 0.7 it is smallest at p = 1. For targets of 0 and 1 both are the same.

    Args:
        gamma: exponent of the distance between prediction and target, at least 0.

    Raises:
        ConfigError: if ``gamma`` is negative.

    Examples:
        >>> QualityFocalLoss()(torch.tensor([0.0]), torch.tensor([1.0]))  # 0.5^2 * log(2)
        tensor(0.1733)
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if gamma < 0:
            raise ConfigError(f"gamma is {gamma}; expected 0 (plain cross-entropy) or more, such as 2.")
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Map logits and target of one shape to a scalar."""
        target = target.to(logits)
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return ((target - logits.sigmoid()).abs() ** self.gamma * entropy).mean()


class DiceQualityFocalLoss(nn.Module):
    """Weighted sum of ``QualityFocalLoss`` and a Dice loss with squared denominators, both smallest at p = t.

    It has the arguments of MONAI's ``DiceFocalLoss``, which it replaces for heatmaps. The Dice term is computed over
    the batch.

    Args:
        lambda_focal: weight of the focal term.
        lambda_dice: weight of the Dice term (L-SNet: 0.2).
        gamma: see ``QualityFocalLoss``.

    Raises:
        ConfigError: if a weight is negative.
    """

    batch = True

    def __init__(self, lambda_focal: float = 1.0, lambda_dice: float = 1.0, gamma: float = 2.0) -> None:
        super().__init__()
        if lambda_focal < 0 or lambda_dice < 0:
            raise ConfigError(
                f"lambda_focal is {lambda_focal} and lambda_dice {lambda_dice}; expected weights of 0 or more."
            )
        self.lambda_focal, self.lambda_dice = lambda_focal, lambda_dice
        self.focal = QualityFocalLoss(gamma)
        self.dice = DiceLoss(sigmoid=True, squared_pred=True, batch=True)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Map logits and target (B, K, ...) to a scalar."""
        return self.lambda_focal * self.focal(logits, target) + self.lambda_dice * self.dice(logits, target)
