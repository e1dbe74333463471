# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Post-processing step that counts how often probabilities are right."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from segan_monai.quality.calibration import calibration_counts
from segan_monai.quality.signals import without_background
from segan_monai.transforms.known_labels import known_voxels
from segan_monai.transforms.regions import label_to_regions


class CalibrationCountsd(MapTransform):
    """Add ``calibration_counts`` (K, 2, 241) to a case, see ``segan_monai.quality.calibration.calibration_counts``.

    Place it after the inversion of the preprocessing, so that probabilities have the label's grid. On another grid,
    nothing is added; the evaluation then says what is wrong.

    Args:
        keys: probabilities (K, H, W[, D]), or (1 + K, H, W[, D]) with the background first, as of a softmax.
        regions: label values of each of the K regions.
        ignore_label: value of voxels whose label is unknown; None for none.
        label_key: the label map (1, H, W[, D]).
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Mapping[str, Sequence[int]],
        ignore_label: int | None = None,
        label_key: str = "label",
    ) -> None:
        super().__init__(keys)
        self.regions = regions
        self.ignore_label = ignore_label
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the key to a case."""
        case = dict(data)
        for key in self.key_iterator(case):
            probabilities, label = case[key], case[self.label_key]
            if probabilities.shape[1:] != label.shape[1:]:
                continue
            references = label_to_regions(label, self.regions, self.ignore_label).cpu().numpy() > 0
            of_case = (case.get("labelled_regions"), str(case.get("case", "")))
            known = known_voxels(label, self.regions, self.ignore_label, *of_case).cpu().numpy() > 0
            of_regions = zip(
                without_background(probabilities, len(references)).cpu().numpy(), references, known, strict=True
            )
            case["calibration_counts"] = np.stack([calibration_counts(*of_region) for of_region in of_regions])
        return case
