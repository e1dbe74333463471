# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Sliding-window inference of normalizer and segmentor in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from segan_monai.inferers.windows import VolumeWindowInferer


class NormalizingWindowInferer(VolumeWindowInferer):
    """``VolumeWindowInferer`` for a ``NormalizerSegmentor``: logits and normalized image from one pass.

    The result is (B, 1 + K + C, H, W, D): logits, background first, then the normalized image; ``SplitNormalizedd``
    separates them.

    Args:
        roi_size: voxels of a window along each axis.
        **settings: arguments of ``VolumeWindowInferer``, with MONAI's defaults of ``overlap`` and ``mode``, and without
            a crop to the content, which the normalized image has all around.
    """

    def __init__(self, roi_size: Sequence[int], **settings: Any) -> None:
        defaults = {"overlap": 0.25, "mode": "constant", "skip_empty": False, "channels_last": False}
        super().__init__(roi_size, **{**defaults, **settings})

    def function_of(self, network: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method that segments and normalizes, also of a network that is wrapped for several processes."""
        return getattr(network, "module", network).segment_and_normalize

    def plain_channels(self, inputs: Tensor) -> int:
        """Return the number of channels of the normalized image, which an ensemble averages as it is."""
        return inputs.shape[1]
