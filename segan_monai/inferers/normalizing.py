# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Sliding-window inference of normalizer and segmentor in one pass."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor

from segan_monai.engines.mixed_precision import autocast_dtype
from segan_monai.inferers.finite import require_finite_output
from segan_monai.inferers.members import infer_members
from segan_monai.inferers.memory import moved, with_less_memory
from segan_monai.networks.ensemble import members_of


class NormalizingWindowInferer(SlidingWindowInferer):
    """MONAI's ``SlidingWindowInferer`` for a ``NormalizerSegmentor``: logits and normalized image from one pass.

    The last channels of the result are the normalized image; ``SplitNormalizedd`` separates them.

    Args:
        amp: mixed precision on the device of the input (bfloat16; float16 on CUDA devices without it).
        **settings: arguments of ``SlidingWindowInferer``. Volumes smaller than the window are centred and zero-padded,
            as ``SpatialPadd`` does in training.
    """

    def __init__(self, *, amp: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Map volumes (B, C, H, W, D) to (B, 1 + K + C, H, W, D): logits, background first, then normalized image.

        Raises:
            NonFiniteOutputError: if a value is NaN or infinite.
        """
        if len(members_of(network)) > 1:
            return infer_members(
                lambda member: self(inputs, member, *args, **kwargs), inputs, network, plain_channels=inputs.shape[1]
            )
        whole = getattr(network, "module", network)
        both = whole.segment_and_normalize

        def windows(x: Tensor) -> Tensor:
            dtype = autocast_dtype(x.device, self.amp)
            with torch.autocast(x.device.type, dtype=dtype, enabled=dtype is not None):
                return both(x).float()

        def apply(batch_size: int, device: torch.device) -> Tensor:
            inferer = copy(self)
            inferer.sw_batch_size = batch_size
            with moved(whole, device):
                result = super(NormalizingWindowInferer, inferer).__call__(inputs.to(device), windows, *args, **kwargs)
            if not isinstance(result, Tensor):
                raise AssertionError("the inferer must return a single tensor")
            return result

        output = with_less_memory(apply, self.sw_batch_size, inputs.device, "windows")
        return require_finite_output(output, inputs)
