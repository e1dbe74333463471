# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Objective of a scalar real-or-fake discriminator, the baseline of SegAN's multi-scale loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.errors import ConfigError


class RealOrFakeLoss(nn.Module):
    """Objective of a GAN over the scores of predicted and true masks, in place of ``MultiScaleL1Loss``.

    With the scores D(p) of an image masked by the prediction and D(y) by the label, the critic maximizes, and the
    segmentor minimizes:

    - ``minimax``: mean log sigmoid D(y) + mean log(1 - sigmoid D(p)), Xue et al. (2018), Eq. 1;
    - ``wasserstein``: mean D(y) - mean D(p), for critics with clamped weights (Arjovsky et al. (2017), Eq. 3).

    With several critics, it is the mean over the critics.

    Args:
        kind: ``minimax`` or ``wasserstein``.

    Raises:
        ConfigError: if the kind is unknown, or a critic returns features instead of one score per image.

    Examples:
        >>> loss = RealOrFakeLoss("wasserstein")
        >>> loss([[torch.tensor([[0.5]])]], [[torch.tensor([[2.0]])]])
        tensor(1.5000)
    """

    def __init__(self, kind: str = "minimax") -> None:
        super().__init__()
        if kind not in ("minimax", "wasserstein"):
            raise ConfigError(f"kind is {kind!r}; expected 'minimax' or 'wasserstein'.")
        self.kind = kind

    def forward(self, predicted: list[list[Tensor]], true: list[list[Tensor]]) -> Tensor:
        """Return the objective, a scalar, from lists (critics) of one score tensor (B, 1) for each kind of mask."""
        return torch.stack([self._of_critic(p, y) for p, y in zip(predicted, true, strict=True)]).mean()

    def _of_critic(self, predicted: list[Tensor], true: list[Tensor]) -> Tensor:
        if len(predicted) != 1 or predicted[0].shape[1:] != (1,):
            raise ConfigError(
                f"the critic returned {len(predicted)} layers; RealOrFakeLoss expects one score per image. "
                "Set score of SegANCritics to true."
            )
        fake, real = predicted[0].float(), true[0].float()
        if self.kind == "wasserstein":
            return real.mean() - fake.mean()
        return F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean()
