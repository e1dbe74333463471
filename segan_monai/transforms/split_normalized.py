# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Separation of logits and normalized image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform


class SplitNormalizedd(MapTransform):
    """Split the output of ``NormalizingWindowInferer`` into logits and normalized image.

    Args:
        keys: logits and normalized image (1 + K + C, ...); keeps the logits (1 + K, ...).
        name: gets the normalized image (C, ...).
        num_channels: C.
    """

    def __init__(self, keys: KeysCollection, name: str = "normalized", num_channels: int = 1) -> None:
        super().__init__(keys)
        self.name = name
        self.num_channels = num_channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with both."""
        case = dict(data)
        for key in self.key_iterator(case):
            both = case[key]
            case[key], case[self.name] = both[: -self.num_channels], both[-self.num_channels :]
        return case
