# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Labels that are known in part: voxels of an ignore value, and regions that a case was not labelled for."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from segan_monai.errors import ConfigError, DataError


def known_voxels(
    label: torch.Tensor,
    regions: Mapping[str, Sequence[int]],
    ignore_label: int | None = None,
    labelled_regions: Sequence[str] | None = None,
    name: str = "without name",
) -> torch.Tensor:
    """Return where the label of each region is known.

    Args:
        label: label map (1, H, W[, D]) of whole numbers.
        regions: label values of each of the K regions.
        ignore_label: value of voxels whose label is unknown; None for none.
        labelled_regions: names of the regions for which the case was labelled; None for all.
        name: of the case, for messages.

    Returns:
        (K, H, W[, D]) in uint8: 1 where the label is known, else 0.

    Raises:
        DataError: if ``labelled_regions`` is empty or names another region.
    """
    names = list(regions)
    listed = names if labelled_regions is None else list(labelled_regions)
    if not listed or not set(listed) <= set(names):
        raise DataError(
            f"case {name} has labelled_regions {listed}; expected one or more of {', '.join(names)}. Correct the "
            "datalist, or omit the field if all regions are labelled."
        )
    known = torch.ones_like(label, dtype=torch.bool) if ignore_label is None else label != ignore_label
    of_region = torch.tensor([region in listed for region in names], device=label.device)
    known = known & of_region.view(-1, *[1 for _ in label.shape[1:]])
    return convert_to_dst_type(known, label, dtype=torch.uint8)[0]


def annotated_slices(label: torch.Tensor, number: int, seed: str) -> list[int]:
    """Draw the slices of a volume that count as annotated, among those with a region.

    Args:
        label: regions (K, H, W, D), sliced along the last axis; 0 where the label is unknown.
        number: of slices; all with a region if there are fewer.
        seed: of the draw.

    Returns:
        Sorted indices; of a volume without any region, drawn among all its slices.

    Raises:
        DataError: the label is not that of a volume.
    """
    if label.ndim != 4:
        raise DataError(
            f"annotated_slices is for volumes; found a label of shape {tuple(label.shape)}. Set it to null."
        )
    with_region = torch.as_tensor(label).flatten(0, 2).any(0).nonzero().flatten().tolist()
    slices = with_region or list(range(label.shape[-1]))
    return sorted(random.Random(seed).sample(slices, min(number, len(slices))))


def check_ignore_label(ignore_label: int | None, regions: Mapping[str, Sequence[int]]) -> None:
    """Check that no region has the value of unknown voxels.

    Raises:
        ConfigError: a region has it, or it is 0, the background.
    """
    holding = ["the background", *(region for region, values in regions.items() if ignore_label in values)]
    if ignore_label == 0 or (ignore_label is not None and len(holding) > 1):
        raise ConfigError(
            f"ignore_label is {ignore_label}, which is a value of {holding[0 if ignore_label == 0 else 1]}. Set it to "
            "the value of voxels without a known label, such as 254, or to null."
        )


class HideUnknownd(MapTransform):
    """Set predictions and labels to 0 where the label is unknown, so that metrics count known voxels only.

    In a region without any known voxel, the label becomes NaN, which ``KnownDiceMetric`` omits.

    Args:
        keys: prediction and label (K, H, W[, D]).
        label_key: that of the label.
        mask_key: 1 where the label is known (K, H, W[, D]); without it, nothing changes.
    """

    def __init__(self, keys: KeysCollection, label_key: str = "label", mask_key: str = "mask") -> None:
        super().__init__(keys)
        self.label_key = label_key
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with hidden voxels."""
        case = dict(data)
        if self.mask_key not in case:
            return case
        for key in self.key_iterator(case):
            known = torch.as_tensor(case[self.mask_key]).to(case[key].device) > 0
            case[key] = case[key] * known
            if key == self.label_key:
                case[key] = case[key].float()
                case[key][~known.flatten(1).any(1)] = float("nan")
        return case
