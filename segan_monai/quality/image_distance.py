# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Distance of an image to the training images, by the features of ``image_features``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SHRINKAGE = 0.3
"""Share of the identity in the correlations [ours]; keeps them invertible with few cases."""
LEAST_SPREAD = 0.05
"""Smallest spread of a feature [ours]: intensities are scaled to about 0 to 1, and the others are logarithms."""


@dataclass(frozen=True)
class ImageReference:
    """Mean, spread and inverse correlation of the features of training images.

    Attributes:
        features: names of the F features.
        mean: (F).
        spread: standard deviations (F).
        inverse: inverse of the shrunk correlation matrix (F, F).
    """

    features: list[str]
    mean: list[float]
    spread: list[float]
    inverse: list[list[float]]

    @classmethod
    def of(cls, features: Sequence[str], values: np.ndarray) -> ImageReference:
        """Return the reference of feature vectors (N, F)."""
        mean, spread = values.mean(0), np.maximum(values.std(0), LEAST_SPREAD)
        z = (values - mean) / spread
        correlation = (1 - SHRINKAGE) * (z.T @ z) / max(len(z), 1) + SHRINKAGE * np.eye(len(mean))
        return cls(list(features), mean.tolist(), spread.tolist(), np.linalg.inv(correlation).tolist())

    def distance(self, image: Mapping[str, float]) -> float:
        """Return the Mahalanobis distance of an image, divided by the square root of the number of features."""
        z = (np.array([image[name] for name in self.features]) - self.mean) / self.spread
        return float(np.sqrt(z @ np.array(self.inverse) @ z / len(z)))

    def strangest(self, image: Mapping[str, float]) -> str:
        """Return the name of the feature that is farthest from the mean."""
        z = (np.array([image[name] for name in self.features]) - self.mean) / self.spread
        return self.features[int(np.abs(z).argmax())]

    def record(self) -> dict[str, Any]:
        """Return plain values, the arguments of the class."""
        return asdict(self)


def held_out_distances(features: Sequence[str], values: np.ndarray, groups: Sequence[Any]) -> np.ndarray:
    """Return the distance of each image to all images of other groups.

    Args:
        features: names of the F features.
        values: (N, F).
        groups: fold of each image.
    """
    distances = np.empty(len(values))
    for group in set(groups):
        inside = np.array([other == group for other in groups])
        reference = ImageReference.of(features, values[~inside])
        rows = (dict(zip(features, row, strict=True)) for row in values[inside])
        distances[inside] = [reference.distance(row) for row in rows]
    return distances
