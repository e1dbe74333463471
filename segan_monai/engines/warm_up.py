# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""End of the normalizer's warm-up: after a number of epochs, or when its error is small."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segan_monai.processes import average_over_processes

logger = logging.getLogger(__name__)


class WarmUp:
    """Determines how long the normalizer G trains alone: Delisle et al. (2020), Section 3.3.

    The paper gives three epochs, in which "optimum is reached". How many that takes depends on the number of patches,
    so the end can also be a reconstruction error [ours]: the mean squared error between G(x) and x, as a fraction of
    the variance of x. It does not depend on the unit of the intensities.

    Args:
        epochs: number of epochs; with ``error``, their largest number.
        error: mean error of an epoch below which the warm-up ends, such as 0.05; None for all epochs.

    Examples:
        >>> warm_up = WarmUp(epochs=9, error=0.5)
        >>> image = torch.tensor([0.0, 2.0])
        >>> warm_up.add(image, image + 0.5)  # 0.25 of a variance of 1
        >>> warm_up.end_epoch(1)
        >>> warm_up.active(1), warm_up.active(2)
        (True, False)
    """

    def __init__(self, epochs: int = 3, error: float | None = None) -> None:
        self.epochs = epochs
        self.error = error
        self.last = epochs
        self.errors: list[Tensor] = []

    def active(self, epoch: int) -> bool:
        """Return whether G trains alone in an epoch, counted from 1."""
        return epoch <= self.last

    def add(self, image: Tensor, normalized: Tensor) -> None:
        """Add the error of a batch."""
        if self.error is None:
            return
        with torch.no_grad():
            variance = image.float().var(correction=0).clamp_min(torch.finfo(torch.float32).tiny)
            self.errors.append((normalized.float() - image.float()).square().mean() / variance)

    def end_epoch(self, epoch: int) -> None:
        """End the warm-up if the mean error of this epoch is below the threshold."""
        if not self.errors or self.error is None:
            return
        device = self.errors[-1].device  # those of a checkpoint are on the CPU
        mean = torch.stack([error.to(device) for error in self.errors]).mean()
        self.errors = []
        average_over_processes([mean])
        found = float(mean)
        if found < self.error:
            self.last = epoch
            logger.info("the warm-up ends after epoch %d: the normalizer's error is %.3g of the variance", epoch, found)
        elif epoch == self.epochs:
            logger.warning(
                "the warm-up ends after warm_up_epochs %d, but the normalizer's error is still %.3g of its input's "
                "variance (warm_up_error %g). Segmentor and discriminator begin with distorted images: raise "
                "warm_up_epochs or normalizer_learning_rate, or pass --identity_start true.",
                epoch,
                found,
                self.error,
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the last epoch of the warm-up and the errors of this one; empty if the number of epochs is fixed."""
        return {} if self.error is None else {"last": self.last, "errors": [float(error) for error in self.errors]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state; a warm-up that had not ended may get another largest number of epochs."""
        if not state:
            return
        self.last = min(self.last, int(state["last"]))
        self.errors = [torch.tensor(error) for error in state["errors"]]
