# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Dice of cases whose labels are known in part."""

from __future__ import annotations

import torch
from monai.metrics import DiceMetric


class KnownDiceMetric(DiceMetric):
    """MONAI's ``DiceMetric`` without the regions for which a case has no label.

    The label of such a region is NaN in all voxels, see ``HideUnknownd``. It does not count in the means. Without NaN,
    the result is that of ``DiceMetric``.

    Takes the arguments of ``DiceMetric``, without ``num_classes``.
    """

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Return Dice (B, K), NaN for regions without a label."""
        unknown = y.isnan().flatten(2).all(2)
        found = super()._compute_tensor(y_pred, y.nan_to_num())
        return found.masked_fill(unknown.to(found.device), float("nan"))
