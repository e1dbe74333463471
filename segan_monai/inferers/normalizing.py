# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Sliding-window inference of normalizer and segmentor in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from segan_monai.inferers.members import infer_members
from segan_monai.inferers.windows import VolumeWindowInferer
from segan_monai.networks.ensemble import members_of


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

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Map volumes (B, C, H, W, D) to (B, 1 + K + C, H, W, D).

        Of an ensemble, the normalized images are averaged.
        """
        if len(members_of(network)) > 1:
            return infer_members(
                lambda member: self(inputs, member, *args, **kwargs), inputs, network, plain_channels=inputs.shape[1]
            )
        return super().__call__(inputs, network, *args, **kwargs)

    def function_of(self, network: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method that segments and normalizes, also of a network that is wrapped for several processes."""
        return getattr(network, "module", network).segment_and_normalize
