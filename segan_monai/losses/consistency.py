# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Disagreement of a segmentor and its teacher on images without labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.errors import ConfigError

_SMOOTH = 1e-5


class ConsistencyLoss(nn.Module):
    """Difference of two predictions of one image: Tarvainen and Valpola (2017), Section 2.

    With probabilities p of the segmentor and q of the teacher:

    - ``mse``: mean (p - q)^2 over all pixels, the loss of the paper;
    - ``dice``: 1 - (2 sum pq + e) / (sum p^2 + sum q^2 + e) over the batch, averaged over classes [ours: small
      structures count as much as large ones].

    Both are 0 where the predictions agree, also between 0 and 1. The teacher's prediction has no gradient.

    Args:
        kind: ``mse`` or ``dice``.

    Raises:
        ConfigError: if the kind is unknown.

    Examples:
        >>> import torch
        >>> p, q = torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[0.5, 0.0]]])
        >>> ConsistencyLoss("mse")(p, q), ConsistencyLoss("dice")(p, q)  # 1 - 2 * 0.25 / (1.25 + 0.25)
        (tensor(0.5000), tensor(0.6667))
    """

    def __init__(self, kind: str = "mse") -> None:
        super().__init__()
        if kind not in ("mse", "dice"):
            raise ConfigError(f"consistency_loss is {kind!r}; expected 'mse' or 'dice'.")
        self.kind = kind

    def forward(self, prediction: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss, a scalar, of two tensors of probabilities (B, K, ...)."""
        p, q = prediction.float(), teacher.detach().float()
        if self.kind == "mse":
            return F.mse_loss(p, q)
        axes = [axis for axis in range(p.ndim) if axis != 1]
        common = (p * q).sum(dim=axes)
        total = p.square().sum(dim=axes) + q.square().sum(dim=axes)
        return (1 - (2 * common + _SMOOTH) / (total + _SMOOTH)).mean()
