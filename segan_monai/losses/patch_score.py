# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Objectives of a critic that scores patches of predicted and true masks of different images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.errors import ConfigError


class PatchScoreLoss(nn.Module):
    """Objectives of critic and segmentor over one score per patch, averaged over patches and critics.

    With scores D(p) of predicted masks and D(y) of true masks of other images, critic and segmentor minimize:

    - ``hinge``: mean max(0, 1 - D(y)) + mean max(0, 1 + D(p)), and -mean D(p) (Lim and Ye (2017));
    - ``least_squares``: mean (D(y) - 1)^2 + mean D(p)^2, and mean (D(p) - 1)^2 (Mao et al. (2017), Eq. 9).

    Patches are the receptive fields of the critic's last layer, as in Isola et al. (2017), Section 3.2.2.

    Args:
        kind: ``hinge`` or ``least_squares``.

    Raises:
        ConfigError: if the kind is unknown.

    Examples:
        >>> loss = PatchScoreLoss("hinge")
        >>> predicted, true = [torch.tensor([[0.5]])], [torch.tensor([[0.25]])]
        >>> loss(predicted, true), loss.for_segmentor(predicted)  # 0.75 + 1.5
        (tensor(2.2500), tensor(-0.5000))
    """

    def __init__(self, kind: str = "hinge") -> None:
        super().__init__()
        if kind not in ("hinge", "least_squares"):
            raise ConfigError(f"patch_loss is {kind!r}; expected 'hinge' or 'least_squares'.")
        self.kind = kind

    def forward(self, predicted: Sequence[Tensor], true: Sequence[Tensor]) -> Tensor:
        """Return the loss of the critic, a scalar, from the scores of each critic, (B, 1, H, W)."""
        return torch.stack([self._of_critic(p.float(), y.float()) for p, y in zip(predicted, true, strict=True)]).mean()

    def for_segmentor(self, predicted: Sequence[Tensor]) -> Tensor:
        """Return the loss of the segmentor, a scalar, from the scores of each critic, (B, 1, H, W)."""
        if self.kind == "hinge":
            return -torch.stack([p.float().mean() for p in predicted]).mean()
        return torch.stack([(p.float() - 1).square().mean() for p in predicted]).mean()

    def _of_critic(self, predicted: Tensor, true: Tensor) -> Tensor:
        if self.kind == "hinge":
            return F.relu(1 - true).mean() + F.relu(1 + predicted).mean()
        return (true - 1).square().mean() + predicted.square().mean()
