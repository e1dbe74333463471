# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Windows of a volume through normalizer and segmentor at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor

from segan_monai.engines.adversarial import autocast_dtype


class NormalizingWindowInferer(SlidingWindowInferer):
    """MONAI's `SlidingWindowInferer` for a `NormalizerSegmentor`: logits and normalized image of one pass.

    The normalized image is the last channels of the result; `SplitNormalizedd` takes them apart.

    Args:
        amp: mixed precision on the device of the input (bfloat16; float16 on CUDA devices without it).
        **settings: arguments of `SlidingWindowInferer`. Volumes smaller than the window are centred and padded with
            zeros, as `SpatialPadd` does in training.
    """

    def __init__(self, *, amp: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Map volumes (B, C, H, W, D) to (B, 1 + K + C, H, W, D): logits, background first, then normalized image."""
        both = getattr(network, "module", network).segment_and_normalize
        dtype = autocast_dtype(inputs.device, self.amp)

        def windows(x: Tensor) -> Tensor:
            with torch.autocast(x.device.type, dtype=dtype, enabled=dtype is not None):
                return both(x).float()

        result = super().__call__(inputs, windows, *args, **kwargs)
        if not isinstance(result, Tensor):
            raise AssertionError("one tensor goes in and one comes out")
        return result
