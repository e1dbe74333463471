# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Relabelling of tissue label maps to a common convention, and skull stripping by label map."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from segan_monai.errors import DataError


class RelabelCased(MapTransform):
    """Map the label values of a case to those shared by all data sets of a run.

    A case's ``tissue_values``, such as ``{10: 1, 150: 2, 250: 3}``, maps each nonzero value of its file; a value may
    map to 0. Cases without it are unchanged. The name must not begin with ``label_``: MONAI would treat the dictionary
    as metadata of the label map and write to it.

    Args:
        keys: label maps (1, H, W, D).

    Raises:
        DataError: on call: a value in the file that ``tissue_values`` does not name.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with new label values."""
        case = dict(data)
        if not case.get("tissue_values"):
            return case
        new = {0: 0, **{int(value): int(becomes) for value, becomes in case["tissue_values"].items()}}
        for key in self.key_iterator(case):
            label = torch.as_tensor(case[key])
            values, inverse, counts = (
                t.as_subclass(torch.Tensor) for t in label.unique(return_inverse=True, return_counts=True)
            )
            file = getattr(case[key], "meta", {}).get("source_files", "its label map")
            found = dict(zip(values.tolist(), counts.tolist(), strict=True))
            if message := unknown_tissue_values(case, file, found):
                raise DataError(message)
            table = torch.tensor([new[int(value)] for value in values.tolist()], dtype=torch.float32)
            case[key] = convert_to_dst_type(table[inverse], case[key])[0]
        return case


def unknown_tissue_values(case: Mapping[Hashable, Any], file: str, found: Mapping[float, int]) -> str | None:
    """Return an error message for label values missing in the case's ``tissue_values``; None if there are none.

    Args:
        case: a case with ``tissue_values``.
        file: its label map.
        found: voxels of each value in it.
    """
    known = {0, *(int(value) for value in case["tissue_values"])}
    unknown = [f"{value:g} ({count} voxels)" for value, count in found.items() if value not in known]
    if not unknown:
        return None
    return (
        f"case {case.get('case', 'without name')}: {file} holds label values {', '.join(unknown[:8])}; "
        f"expected {', '.join(map(str, sorted(known)))}. Correct 'tissue_values' of the case in a --datalist "
        "file, or the label map."
    )


class StripByLabeld(MapTransform):
    """Set images to 0 where the label map is 0, in cases with a true field ``skull_strip``.

    Source: Delisle et al. (2020), Section 3.2.

    Args:
        keys: images (C, H, W, D).
        label_key: label map (1, H, W, D) on the same grid.
    """

    def __init__(self, keys: KeysCollection, label_key: str = "label") -> None:
        super().__init__(keys)
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case, stripped if it asks for it."""
        case = dict(data)
        if case.get("skull_strip"):
            for key in self.key_iterator(case):
                stripped = torch.as_tensor(case[key]) * (torch.as_tensor(case[self.label_key]) != 0)
                case[key] = convert_to_dst_type(stripped, case[key])[0]
        return case
