# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Random changes that differ between modalities, but not between neighbouring slices of one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import MAX_SEED, convert_to_tensor
from torch import Tensor

from segan_monai.errors import ConfigError


class EachModalityd(Randomizable, MapTransform):
    """Apply a transform to each modality of 2-D slices, each time with new random numbers.

    With neighbouring slices, the channels of an image are those of the first slice, then of the next (see
    ``neighbouring_slices``). The transform receives one modality as (N, H, W) with all its N slices.

    Args:
        keys: images (N * C, H, W).
        modalities: number of modalities C.
        transform: transform of arrays, such as ``RandAdjustContrast``, or ``Compose`` of several; it keeps the shape.

    Raises:
        ConfigError: The number of channels is not a multiple of ``modalities``.
    """

    def __init__(self, keys: KeysCollection, modalities: int, transform: Callable[[Tensor], Any]) -> None:
        MapTransform.__init__(self, keys)
        self.modalities = modalities
        self.transform = transform

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> EachModalityd:
        """Set the random state of this transform and of the inner one."""
        super().set_random_state(seed, state)
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=int(self.R.randint(MAX_SEED, dtype="uint32")))
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with changed images, as plain tensors."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = convert_to_tensor(result[key], track_meta=False)
            if len(image) % self.modalities:
                raise ConfigError(
                    f"'{key}' has {len(image)} channels, expected a multiple of the {self.modalities} modalities. "
                    "Correct 'modalities' of EachModalityd."
                )
            changed = [self.transform(slices) for slices in image.unflatten(0, (-1, self.modalities)).unbind(1)]
            plain = [convert_to_tensor(slices, track_meta=False) for slices in changed]
            result[key] = torch.stack(plain, dim=1).flatten(0, 1)
        return result
