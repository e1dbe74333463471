# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Overlap metrics of masks: Dice, IoU, precision and sensitivity, and the rule for empty masks."""

from __future__ import annotations

import numpy as np
import torch

EMPTY_MASK_RULE = (
    "If both masks are empty, Dice, IoU, precision and sensitivity are 1 and surface distances are 0. If exactly one "
    "mask is empty, Dice, IoU, precision and sensitivity are 0 and surface distances are infinite. No case is omitted."
)


def as_array(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return an array, or a tensor on any device, as a NumPy array; copy only if necessary."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def as_masks(
    prediction: np.ndarray | torch.Tensor, reference: np.ndarray | torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return both masks as boolean NumPy arrays; nonzero values are foreground.

    Raises:
        ValueError: if the shapes differ; masks are not broadcast.
    """
    prediction, reference = (as_array(mask).astype(bool, copy=False) for mask in (prediction, reference))
    if prediction.shape != reference.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the reference {reference.shape}: must be equal")
    return prediction, reference


def overlap_metrics(prediction: np.ndarray | torch.Tensor, reference: np.ndarray | torch.Tensor) -> dict[str, float]:
    """Compute Dice, IoU, precision and sensitivity of a predicted mask.

    With the voxel counts TP, FP and FN: Dice = 2 TP / (2 TP + FP + FN), IoU = TP / (TP + FP + FN),
    precision = TP / (TP + FP), sensitivity = TP / (TP + FN). Empty masks follow ``EMPTY_MASK_RULE``.

    Args:
        prediction: mask of any shape, array or tensor; nonzero values are foreground.
        reference: mask of the same shape.

    Returns:
        Values from 0 to 1 under the keys ``dice``, ``iou``, ``precision``, ``sensitivity``.

    Raises:
        ValueError: if the shapes differ.
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
