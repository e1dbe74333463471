# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks for NaN and infinite network output, which a label map would hide."""

from __future__ import annotations

from torch import Tensor

from segan_monai.errors import UserError


class NonFiniteOutputError(UserError):
    """NaN or infinite values in a network's output for an image."""


def is_finite(values: Tensor) -> bool:
    """Return whether all values are finite; a finite sum shows it ten times faster than testing every value."""
    return bool(values.detach().sum().isfinite()) or bool(values.isfinite().all())


def require_finite(output: Tensor, what: str) -> None:
    """Check that a network's output contains no NaN or infinite value.

    Args:
        output: network output of any shape, before sigmoid or softmax, which map infinite values to finite ones.
        what: name of the input, for the error message.

    Raises:
        NonFiniteOutputError: A value is NaN or infinite.
    """
    if is_finite(output):
        return
    bad = int((~output.isfinite()).sum())
    raise NonFiniteOutputError(
        f"{what}: {bad} of {output.numel()} values of the network's output are NaN or infinite, so no label map is "
        "written. Expected finite values. Pass --amp false if mixed precision is on, check the image for extreme "
        "intensities, or use weights from an earlier epoch or from training with a lower learning rate."
    )
