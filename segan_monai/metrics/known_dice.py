# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Dice of cases whose labels are known in part."""

from __future__ import annotations

from typing import Any, cast

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

    def aggregate(self, reduction: Any = None) -> Any:
        """Return what ``DiceMetric`` returns; regions without a label in all cases are no keys, not 0."""
        found = super().aggregate(reduction)
        if not isinstance(found, dict):
            return found
        known = ~cast(torch.Tensor, self.get_buffer()).isnan().all(0)
        return {name: dice for (name, dice), is_known in zip(found.items(), known, strict=True) if is_known}
