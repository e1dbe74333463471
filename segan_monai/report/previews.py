# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Slices of a few cases, in screen orientation, that an evaluation saves for its report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CasePreview:
    """Slices of a case; the first row is the top of the picture.

    Attributes:
        case: name of the case.
        dice: mean Dice over the regions.
        modalities: names of the M panels.
        regions: names of the R regions.
        image: (N, M, H, W) grey, or (N, M, H, W, 3) colour, uint8.
        reference: (N, R, H, W) bool.
        prediction: (N, R, H, W) bool.
        aspect: ratio of a pixel's height to its width.
        middle: index of the slice shown first.
        boxes: for each slice, the RoIs' edges left, top, right, bottom in pixels from the upper left corner.
    """

    case: str
    dice: float
    modalities: list[str]
    regions: list[str]
    image: NDArray[Any]
    reference: NDArray[Any]
    prediction: NDArray[Any]
    aspect: float = 1.0
    middle: int = 0
    boxes: list[list[list[float]]] = field(default_factory=list)


_ARRAYS = ("image", "reference", "prediction")


def save_previews(file: Path, previews: Mapping[str, CasePreview]) -> None:
    """Write previews, keyed by role (worst, median, best), to a compressed ``.npz`` file."""
    arrays, about = {}, []
    for number, (role, preview) in enumerate(previews.items()):
        fields = dict(vars(preview))
        for name in _ARRAYS:
            arrays[f"{number}_{name}"] = fields.pop(name)
        about.append({"role": role, **fields})
    np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)


def load_previews(file: Path) -> dict[str, CasePreview]:
    """Read previews written by ``save_previews``."""
    with np.load(file, allow_pickle=False) as content:
        about = json.loads(str(content["about"]))
        return {
            one.pop("role"): CasePreview(**one, **{name: content[f"{number}_{name}"] for name in _ARRAYS})
            for number, one in enumerate(about)
        }
