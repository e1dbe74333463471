# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses over the pixels whose label is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.losses import DeepSupervisionLoss
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.losses.exclusive import ExclusiveClassLoss


def loss_of_known_pixels(loss: Callable, logits: Any, target: Tensor, known: Tensor | None) -> Tensor:
    """Return a loss over the pixels whose label is known, as if there were no others.

    The known pixels of the batch are gathered into one row, and the loss is called with it. Sums over pixels, such as
    those of Dice, and means over pixels, such as cross-entropy, are therefore both exact. Multiplying by the mask would
    be exact for Dice only, and would count the unknown pixels in the mean of a cross-entropy.

    If the known pixels differ between classes, the loss is called once per class, and the result is the mean over the
    classes with any. Exclusive classes share one softmax, so ``ExclusiveClassLoss`` uses the pixels that are known for
    all classes.

    Args:
        loss: called with logits and target (1, K, n), such as ``DiceLoss(sigmoid=True, batch=True)``; or MONAI's
            ``DeepSupervisionLoss`` of such a loss.
        logits: (B, K, ...); for ``ExclusiveClassLoss`` (B, 1 + N, ...); for ``DeepSupervisionLoss`` a list of them.
        target: (B, K, ...), 0 or 1.
        known: (B, K, ...), 1 where the label is known, else 0; None if it is known everywhere.

    Returns:
        A scalar; 0, with a gradient of 0, if no pixel is known.

    Raises:
        ConfigError: if the loss is computed per image (``batch`` false), because the images lose their borders.
    """
    if known is None:
        return loss(logits, target)
    if isinstance(loss, DeepSupervisionLoss):
        levels = logits if isinstance(logits, list) else [logits]
        terms = [loss_of_known_pixels(loss.loss, level, target, known) for level in levels]
        weights = loss.get_weights(len(levels)) if isinstance(logits, list) else [1.0]
        return torch.stack([weight * term for weight, term in zip(weights, terms, strict=True)]).sum()
    parts = loss.modules() if isinstance(loss, nn.Module) else [loss]
    if any(getattr(part, "batch", True) is False for part in parts):
        raise ConfigError(
            f"{type(loss).__name__} is computed per image (batch false), which is not possible where labels are partly "
            "known. Set batch of supervised_loss to true."
        )
    selected = known > 0.5
    in_all = selected.all(dim=1)
    if isinstance(loss, ExclusiveClassLoss) or torch.equal(in_all, selected.any(dim=1)):
        found = [loss(_row(logits, in_all), _row(target, in_all))] if in_all.any() else []
    else:
        classes = [k for k in range(target.shape[1]) if selected[:, k].any()]
        found = [loss(*(_row(x[:, k : k + 1], selected[:, k]) for x in (logits, target))) for k in classes]
    return torch.stack(found).mean() if found else logits.sum() * 0.0


def _row(x: Tensor, selected: Tensor) -> Tensor:
    """Return the selected pixels (B, ...) of all channels (B, K, ...) as one row (1, K, n)."""
    return x.movedim(1, -1)[selected].T[None]
