# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Augmentation of a whole batch of slices on its device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.transforms import EnsureTyped
from torch import Tensor

from segan_monai.transforms.batch_deformation import BatchDeformation
from segan_monai.transforms.batch_intensity import DICTIONARY_VERSIONS, BatchIntensity
from segan_monai.transforms.each_modality import EachModalityd


class AugmentBatch:
    """Apply the random transforms of a loader to whole batches instead, on the device of the batch.

    Each sample is changed as if the loader had applied the transforms to it: the same probabilities and ranges, its
    label maps with it. Random numbers come from torch's generators, so a run is repeatable and can be resumed.

    Args:
        transforms: transforms of a single sample in order: deformation, see ``BatchDeformation``; intensities, see
            ``BatchIntensity``; and ``EnsureTyped``, which a batch does not need. None, a disabled step of a config,
            is skipped.

    Raises:
        ConfigError: A transform has no counterpart for batches.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.steps: list[Callable[[Mapping[Any, Tensor]], dict[Any, Tensor]]] = [
            BatchIntensity(step) if isinstance(step, (EachModalityd, *DICTIONARY_VERSIONS)) else BatchDeformation(step)
            for step in transforms
            if step is not None and not isinstance(step, EnsureTyped)
        ]

    def __call__(self, batch: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
        """Return the changed batch; the input stays as it is.

        Args:
            batch: plain tensors (B, C, H, W) in float32 on one device, such as ``image``, ``label`` and ``mask``.
        """
        result = dict(batch)
        for step in self.steps:
            result = step(result)
        return result
