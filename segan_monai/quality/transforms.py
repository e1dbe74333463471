# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Post-processing step that adds the signals of quality, and the estimate, to a case."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from segan_monai.inferers.agreement import Agreement
from segan_monai.quality.estimate import QualityModel
from segan_monai.quality.file import read_quality
from segan_monai.quality.signals import image_features, region_signals


class QualitySignalsd(MapTransform):
    """Add ``quality_signals`` to a case, and ``quality`` if there is a model beside the weights.

    - ``quality_signals``: ``image`` and ``regions``, see ``image_features`` and ``region_signals``.
    - ``quality``: by region ``expected_dice``, ``lower_bound`` and ``flag``, see ``QualityModel``. It is also
      added to ``result``, which MONAI Label returns as JSON.

    Place it after the activation and before the inversion of the preprocessing, so that image and probabilities have
    one grid.

    Args:
        keys: probabilities (K, H, W[, D]), or (1 + K, H, W[, D]) with the background first, as of a softmax.
        image_key: the preprocessed image (C, H, W[, D]).
        agreement: that of the inferer of the run, which compares the outputs that it averages.
        regions: names of the K regions.
        modalities: names of the C channels.
        settings: settings of the run that change the signals, plain values.
        weights: files of weights of the run, if it shall estimate; None to give signals alone.

    Raises:
        ConfigError: ``weights`` are given, and ``quality.json`` beside them is missing, damaged, or of other weights or
            settings, see ``read_quality``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        agreement: Agreement,
        regions: Sequence[str],
        modalities: Sequence[str],
        settings: Mapping[str, Any],
        weights: Sequence[str | os.PathLike[str]] | None = None,
        image_key: str = "image",
    ) -> None:
        super().__init__(keys)
        self.agreement = agreement
        self.regions = list(regions)
        self.modalities = list(modalities)
        self.image_key = image_key
        self.model: QualityModel | None = None
        if weights is not None:
            self.model = read_quality(weights, settings)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the keys to a case."""
        case = dict(data)
        for key in self.key_iterator(case):
            probabilities, image = case[key], case[self.image_key]
            ml = voxel_ml(probabilities) if probabilities.ndim == 4 else 0.001
            regions = region_signals(plain(probabilities), self.regions, self.agreement.dice(), ml)
            features = image_features(plain(image), self.modalities)
            case["quality_signals"] = {"image": features, "regions": regions}
            if self.model is not None:
                quality = self.model.estimate(features, regions)
                case["quality"] = quality
                case["result"] = {**(case.get("result") or {}), "quality": quality}
        return case


def plain(values: Any) -> torch.Tensor:
    """Return values as a tensor without metadata."""
    return values.as_tensor() if hasattr(values, "as_tensor") else torch.as_tensor(values)


def voxel_ml(values: Any) -> float:
    """Return the volume of a voxel in ml; that of 1 cubic mm without an affine."""
    affine = getattr(values, "affine", None)
    return 0.001 if affine is None else abs(float(torch.linalg.det(affine[:3, :3].double()))) / 1000
