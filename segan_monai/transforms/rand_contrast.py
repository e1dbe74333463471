# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Random contrast: intensities mapped by a random curve, which need not rise."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor

from segan_monai.errors import ConfigError

PERCENTILES = (1.0, 99.0)
"""Percentiles of the voxels at the first and the last knot of a curve."""


def map_intensities(image: Tensor, levels: NDArray[np.float64] | list[float]) -> Tensor:
    """Map the intensities of an image by a piecewise linear curve, and restore their mean and deviation.

    The curve has equally spaced knots between the 1st and the 99th percentile, and is constant beyond, so a few bright
    voxels do not push all tissues between two knots [ours]. Voxels of exactly 0 are background: they stay 0 and are not
    counted. An image whose percentiles are equal, or a flat curve, is returned unchanged.

    Args:
        image: intensities of any shape.
        levels: values of the curve at its knots, 2 or more.

    Returns:
        The image, of the same shape and type.

    Examples:
        >>> map_intensities(torch.tensor([0.0, 1.0, 2.0, 3.0]), [1.0, 0.0])  # inverted
        tensor([0., 3., 2., 1.])
    """
    inside = image != 0
    voxels = image[inside].double()
    if not len(voxels):
        return image
    low, high = (float(percentile(voxels, share)) for share in PERCENTILES)
    if low == high:
        return image
    knots = torch.as_tensor(levels, dtype=torch.float64, device=image.device)
    place = ((voxels - low) / (high - low)).clamp(0, 1) * (len(knots) - 1)
    first = place.floor().clamp(0, len(knots) - 2).long()
    found = torch.lerp(knots[first], knots[first + 1], place - first)
    deviation = found.std(correction=0)
    if deviation == 0:
        return image
    found = (found - found.mean()) / deviation * voxels.std(correction=0) + voxels.mean()
    result = image.clone()
    result[inside] = found.to(image.dtype)
    return result


class RandContrastCurve(RandomizableTransform):
    """Map the intensities of an image by a random curve, see ``map_intensities``.

    The values of the curve are uniform in [0, 1], so it may rise or fall, and tissues get any order of brightness. This
    is the idea of SynthSeg (Billot et al. (2023)), which draws intensities per label instead, and so also separates
    tissues that are alike in the image. All channels have the same curve.

    Args:
        prob: probability of a change.
        knots: number of knots of the curve, at least 2.

    Raises:
        ConfigError: if ``knots`` is below 2.
    """

    def __init__(self, prob: float = 0.5, knots: int = 5) -> None:
        super().__init__(prob)
        if knots < 2:
            raise ConfigError(f"knots is {knots}; expected at least 2, for a straight line.")
        self.knots = knots
        self.levels: NDArray[np.float64] = np.zeros(knots)

    def randomize(self, data: Any = None) -> None:
        """Draw whether the image changes, and the curve."""
        super().randomize(None)
        self.levels = self.R.uniform(size=self.knots)

    def __call__(self, image: Any, randomize: bool = True) -> Any:
        """Return the image (C, ...), changed or not, as a plain tensor if it changes."""
        if randomize:
            self.randomize()
        if not self._do_transform:
            return image
        return map_intensities(convert_to_tensor(image, track_meta=False), self.levels)


class RandContrastCurved(MapTransform, RandomizableTransform):
    """Dictionary version of ``RandContrastCurve``.

    Args:
        keys: images (C, ...); each gets a curve of its own.
        prob: probability of a change.
        knots: number of knots of the curve.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.5, knots: int = 5) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        self.curve = RandContrastCurve(prob, knots)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandContrastCurved:
        """Set the random state of the curves."""
        super().set_random_state(seed, state)
        self.curve.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with changed images; metadata of an image stays."""
        case = dict(data)
        for key in self.key_iterator(case):
            before = case[key]
            changed = self.curve(before)
            if changed is not before:
                case[key] = before.clone().copy_(changed) if isinstance(before, torch.Tensor) else changed
        return case
