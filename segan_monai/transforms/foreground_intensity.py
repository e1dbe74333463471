# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Scaling of foreground intensities to [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from torch import Tensor


def scale_foreground(image: Tensor, lower: float = 0.5, upper: float = 99.5) -> Tensor:
    """Scale percentiles of the nonzero voxels to 0 and 1, channel by channel, and clip.

    SegAN's critic receives images multiplied by label maps, which carry no signal where the image is 0. Intensities are
    therefore positive, not standardized [ours; Xue et al. (2018), footnote 1, mentions [0, 1]]. Background (exactly 0)
    stays 0 and does not affect the percentiles, so the result does not depend on cropping.

    Args:
        image: (C, ...) with finite voxels.
        lower: percentile that becomes 0.
        upper: percentile that becomes 1.

    Returns:
        float32 image of the same shape; a channel without foreground, or a constant one, is 0 or 1 there.
    """
    result = torch.empty_like(image, dtype=torch.float32)
    for channel, scaled in zip(image.float(), result, strict=True):
        foreground = channel != 0
        values = channel[foreground].numpy()
        if values.size == 0:
            scaled.zero_()
            continue
        low, high = np.percentile(values, [lower, upper])
        # avoids division by zero: a constant foreground becomes 1
        low = low if high > low else high - 1.0
        torch.sub(channel, float(low), out=scaled).div_(float(high - low)).clamp_(0, 1).mul_(foreground)
    return result


class ScaleForegroundd(MapTransform):
    """Dictionary version of ``scale_foreground``; keeps the metadata.

    Args:
        keys: images (C, ...).
        lower: percentile that becomes 0.
        upper: percentile that becomes 1.
    """

    def __init__(self, keys: KeysCollection, lower: float = 0.5, upper: float = 99.5) -> None:
        super().__init__(keys)
        self.lower = lower
        self.upper = upper

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with scaled images."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = convert_to_tensor(result[key], track_meta=True)
            scaled = image.clone()
            scaled.set_array(scale_foreground(image.as_tensor(), self.lower, self.upper))
            result[key] = scaled
        return result
