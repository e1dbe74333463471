# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Refuse network output that is NaN or infinite, of which a label map would look like any other."""

from __future__ import annotations

from torch import Tensor

from segan_monai.errors import UserError


class NonFiniteOutputError(UserError):
    """A network gave NaN or infinite values for an image."""


def is_finite(values: Tensor) -> bool:
    """Tell whether all values are finite: by their sum, and value by value only where the sum is not finite."""
    return bool(values.detach().sum().isfinite()) or bool(values.isfinite().all())


def require_finite(output: Tensor, what: str) -> None:
    """Refuse output with a value that is NaN or infinite.

    Args:
        output: of a network, any shape, before sigmoid or softmax: these make finite numbers of infinite ones.
        what: what it is the output of, for the message.

    Raises:
        NonFiniteOutputError: a value is NaN or infinite.
    """
    if is_finite(output):
        return
    bad = int((~output.isfinite()).sum())
    raise NonFiniteOutputError(
        f"{what}: {bad} of {output.numel()} values of the network's output are NaN or infinite, so no label map is "
        "made of it. Expected finite numbers. Pass --amp false if mixed precision is on, look for extreme intensities "
        "in the image, or use other weights: those of an earlier epoch, or of a training with a lower learning rate."
    )
