# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Overlap of two masks: Dice, IoU, precision and sensitivity, and the one rule for empty masks."""

from __future__ import annotations

import numpy as np
import torch

EMPTY_MASK_RULE = (
    "Both masks empty is a perfect result: Dice, IoU, precision and sensitivity are 1, surface distances 0. "
    "Exactly one mask empty is a failure: the four are 0, surface distances infinite. No case is left out."
)


def as_array(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Returns an array or a tensor of any device as a numpy array, without a copy where there is none needed."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def as_masks(
    prediction: np.ndarray | torch.Tensor, reference: np.ndarray | torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Returns both masks as boolean numpy arrays; whatever is not 0 belongs to a mask.

    Raises:
        ValueError: the shapes differ (nothing is broadcast).
    """
    prediction, reference = (as_array(mask).astype(bool, copy=False) for mask in (prediction, reference))
    if prediction.shape != reference.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the reference {reference.shape}: must be equal")
    return prediction, reference


def overlap_metrics(prediction: np.ndarray | torch.Tensor, reference: np.ndarray | torch.Tensor) -> dict[str, float]:
    """Dice, IoU, precision and sensitivity of one predicted mask.

    With TP, FP and FN the numbers of voxels: Dice = 2 TP / (2 TP + FP + FN), IoU = TP / (TP + FP + FN),
    precision = TP / (TP + FP), sensitivity = TP / (TP + FN). Empty masks follow `EMPTY_MASK_RULE`.

    Args:
        prediction: mask of any shape, array or tensor; values other than 0 belong to it.
        reference: mask of the same shape.

    Returns:
        The four numbers, 0 to 1, under the keys `dice`, `iou`, `precision`, `sensitivity`.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, reference = as_masks(prediction, reference)
    predicted, true = np.count_nonzero(prediction), np.count_nonzero(reference)
    if predicted == 0 or true == 0:
        return dict.fromkeys(("dice", "iou", "precision", "sensitivity"), float(predicted == true))
    common = np.count_nonzero(prediction & reference)
    return {
        "dice": 2 * common / (predicted + true),
        "iou": common / (predicted + true - common),
        "precision": common / predicted,
        "sensitivity": common / true,
    }
