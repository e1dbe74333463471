# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Conversion between label maps and the regions that a network predicts.

Regions may be nested (whole tumour, tumour core, enhancing tumour) or exclusive (grey matter, white matter), as
determined by their label values.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from segan_monai.errors import ConfigError, DataError
from segan_monai.label_values import label_values
from segan_monai.transforms.known_labels import annotated_slices, check_ignore_label, known_voxels

Regions = Mapping[str, Sequence[int]]


def label_to_regions(label: torch.Tensor, regions: Regions, ignore_label: int | None = None) -> torch.Tensor:
    """Convert a label map to one binary map per region.

    Args:
        label: label map (1, H, W[, D]) of whole numbers.
        regions: label values of each of the K regions.
        ignore_label: value of voxels whose label is unknown, which are in no region; None for none.

    Returns:
        (K, H, W[, D]) in uint8, 1 where the label is one of the region's values.

    Raises:
        DataError: a label value other than 0 and ``ignore_label`` that is in no region.
    """
    if label.shape[0] != 1:
        raise DataError(f"{_name(label)}: expected a label map of one channel, found shape {tuple(label.shape)}.")
    values = label.as_tensor() if isinstance(label, MetaTensor) else label
    maps = torch.zeros((len(regions), *values.shape[1:]), dtype=torch.bool, device=values.device)
    known = torch.count_nonzero(values == 0)
    if ignore_label is not None:
        known += torch.count_nonzero(values == ignore_label)
    for value in label_values(regions):
        mask = values[0] == value
        known += torch.count_nonzero(mask)
        for index, of_region in enumerate(regions.values()):
            if value in of_region:
                maps[index] |= mask
    if known != values.numel():
        _raise_unknown(label, values, regions, ignore_label)
    return convert_to_dst_type(maps.view(torch.uint8), label, dtype=torch.uint8)[0]


def regions_to_label_map(
    probabilities: torch.Tensor,
    regions: Regions,
    values: Sequence[int] | str = "consecutive",
    threshold: float | None = 0.5,
) -> torch.Tensor:
    """Merge region probabilities into one label map.

    - Exclusive regions (no label value in two of them): a voxel gets the region with the highest probability, if that
      reaches the threshold.
    - Other regions are painted over each other where they reach the threshold. The region with the most label values
      comes first, ties in the given order. The enhancing tumour thus stays visible on the tumour core for any channel
      order, and also where no whole tumour is predicted around it.

    Args:
        probabilities: (K, H, W[, D]) in [0, 1].
        regions: label values of each of the K regions, in channel order.
        values: value of each region in the result: ``"consecutive"`` for 1 to K; ``"dataset"`` for the data set's own
            convention, each region's least label value that no region within it has (BraTS 2021: 2, 1, 4; necrosis
            and non-enhancing core of BraTS 2015 cannot be told apart again: both become 1); or K values.
        threshold: a region is where its probability is at least this; None for where it is above that of the
            background, 1 minus the sum of all, as for the softmax of exclusive regions.

    Returns:
        (1, H, W[, D]) in uint8, 0 for background, with the metadata of the input.

    Raises:
        ConfigError: another number of channels or of values than regions, or values not in 1 to 255 or not distinct.
    """
    values = _merged_values(regions, values)
    if probabilities.shape[0] != len(regions):
        raise ConfigError(
            f"{probabilities.shape[0]} channels of shape {tuple(probabilities.shape)} for {len(regions)} regions "
            f"({', '.join(regions)}). The network's number of outputs and the setting `regions` must agree."
        )
    maps = probabilities.as_tensor() if isinstance(probabilities, MetaTensor) else probabilities
    if threshold is None:
        best = torch.cat([1 - maps.sum(dim=0, keepdim=True), maps]).argmax(dim=0, keepdim=True)
        merged = torch.tensor([0, *values], dtype=torch.uint8, device=maps.device)[best]
        return convert_to_dst_type(merged, probabilities, dtype=torch.uint8)[0]
    if len(values) > 1 and regions_are_exclusive(
        regions
    ):  # one region alone needs no comparison, and is many times as fast
        highest, best = maps.max(dim=0, keepdim=True)
        merged = torch.tensor(values, dtype=torch.uint8, device=maps.device)[best]
        merged.masked_fill_(highest < threshold, 0)
    else:
        merged = torch.zeros((1, *maps.shape[1:]), dtype=torch.uint8, device=maps.device)
        for index in paint_order(regions):
            merged.masked_fill_(maps[index : index + 1] >= threshold, values[index])
    return convert_to_dst_type(merged, probabilities, dtype=torch.uint8)[0]


def paint_order(regions: Regions) -> list[int]:
    """Return the positions of the regions in painting order, the largest first."""
    sizes = [len(set(of_region)) for of_region in regions.values()]
    return sorted(range(len(sizes)), key=lambda index: -sizes[index])


def merged_regions(regions: Regions, values: Sequence[int] | str = "consecutive") -> dict[str, list[int]]:
    """Return the values of each region in a label map of ``regions_to_label_map``.

    A region consists of its own value and those of all regions within it: of nested whole tumour, tumour core and
    enhancing tumour [1, 2, 3], [2, 3] and [3]; of exclusive regions [1], [2], ... Where regions overlap without being
    nested, the overlap counts only for the one painted last.

    Args:
        regions: label values of each region.
        values: as for ``regions_to_label_map``.

    Returns:
        Region name to values in the merged label map.

    Raises:
        ConfigError: see ``regions_to_label_map``.
    """
    values = _merged_values(regions, values)
    return {
        name: [value for value, inner in zip(values, regions.values(), strict=True) if set(inner) <= set(of_region)]
        for name, of_region in regions.items()
    }


class LabelToRegionsd(MapTransform):
    """Dictionary version of ``label_to_regions``.

    Args:
        keys: label maps (1, H, W[, D]).
        regions: label values of each region, in channel order.
        allow_missing_keys: whether to skip missing keys.
        ignore_label: value of voxels whose label is unknown; None for none.
        mask_key: receives where the label is known (K, H, W[, D]), see ``known_voxels``; None for no mask. The case's
            ``labelled_regions`` count, too. With ``annotated_slices`` of the case (``number``, ``seed``), only so many
            slices along the last axis are known, see ``annotated_slices``. The regions are 0 where they are unknown.

    Raises:
        ConfigError: ``ignore_label`` is 0 or a value of a region.
        DataError: when called, if a case lists only some ``labelled_regions`` and there is no ``mask_key``: its other
            regions would count as background.
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Regions,
        allow_missing_keys: bool = False,
        ignore_label: int | None = None,
        mask_key: str | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.regions = {name: list(values) for name, values in regions.items()}
        check_ignore_label(ignore_label, self.regions)
        self.ignore_label = ignore_label
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each label map (1, H, W[, D]) by its regions (K, H, W[, D])."""
        case = dict(data)
        listed = case.pop("labelled_regions", None)  # lists of different lengths cannot be collated
        drawn = case.pop("annotated_slices", None)
        name = str(case.get("case", "without name"))
        for key in self.key_iterator(case):
            label = label_to_regions(case[key], self.regions, self.ignore_label)
            if self.mask_key is not None:
                known = known_voxels(case[key], self.regions, self.ignore_label, listed, name)
                if drawn is not None:
                    slices = annotated_slices(label * known, drawn["number"], f"{drawn['seed']} {name}")
                    annotated = torch.zeros(label.shape[-1], dtype=known.dtype, device=known.device)
                    annotated[slices] = 1
                    known = known * annotated
                case[self.mask_key], label = known, label * known
            elif listed is not None and set(listed) != set(self.regions):
                raise DataError(
                    f"{_name(case[key])}: case {name} has labelled_regions {list(listed)} in its datalist; expected "
                    f"all of {', '.join(self.regions)}, because this bundle takes the others for background. Omit the "
                    "case, label its other regions, or train a SegAN or L-SNet bundle, which use known regions only."
                )
            case[key] = label
        return case


class RegionsToLabelMapd(MapTransform):
    """Dictionary version of ``regions_to_label_map``.

    Args:
        keys: probabilities (K, H, W[, D]).
        regions: label values of each region, in channel order.
        values: value of each region in the label map: ``"consecutive"`` (1 to K), ``"dataset"`` (the data set's own
            convention, see ``regions_to_label_map``), or K values.
        threshold: a region is where its probability is at least this; None for where it is above the background's.
        allow_missing_keys: whether to skip missing keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Regions,
        values: Sequence[int] | str = "consecutive",
        threshold: float | None = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.regions = {name: list(of_region) for name, of_region in regions.items()}
        self.values = _merged_values(regions, values)
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each set of probabilities (K, H, W[, D]) by a label map (1, H, W[, D])."""
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = regions_to_label_map(case[key], self.regions, self.values, self.threshold)
        return case


def regions_are_exclusive(regions: Regions) -> bool:
    """Return whether no label value is in two regions."""
    return len(label_values(regions)) == sum(len(set(of_region)) for of_region in regions.values())


def _merged_values(regions: Regions, values: Sequence[int] | str) -> list[int]:
    if values == "consecutive":
        return list(range(1, len(regions) + 1))
    if values == "dataset":
        values = [_own_value(name, regions) for name in regions]
    fits = not isinstance(values, str) and len(values) == len(set(values)) == len(regions)
    if not fits or not all(isinstance(value, int) and 1 <= value <= 255 for value in values):
        raise ConfigError(
            f"values={values!r} for {len(regions)} regions ({', '.join(regions)}). Expected 'consecutive', 'dataset', "
            "or one integer from 1 to 255 per region, all different."
        )
    return [int(value) for value in values]


def _own_value(name: str, regions: Regions) -> int:
    """Return the smallest label value of a region that is in no region nested within it."""
    own = set(regions[name])
    within = [set(other) for other in regions.values() if set(other) < own]
    return min(own.difference(*within), default=min(own))


def _name(label: torch.Tensor) -> str:
    meta = label.meta if isinstance(label, MetaTensor) else {}
    return str(meta.get("source_files") or meta.get("filename_or_obj") or "the given label map")


def _raise_unknown(label: torch.Tensor, values: torch.Tensor, regions: Regions, ignore_label: int | None) -> None:
    found = zip(*(column.tolist() for column in values.unique(return_counts=True)), strict=True)
    raise DataError(unknown_values(_name(label), dict(found), regions, ignore_label))


def unknown_values(
    name: str, found: Mapping[float, int], regions: Regions, ignore_label: int | None = None
) -> str | None:
    """Return an error message for a label map with values in no region.

    Args:
        name: name of the file.
        found: voxels of each value in it.
        regions: label values of each region.
        ignore_label: value of voxels whose label is unknown; None for none.

    Returns:
        The message; None if all values but 0 are in some region.
    """
    allowed = [0, *label_values(regions), *([] if ignore_label is None else [ignore_label])]
    unknown = [f"{value:g} ({count} voxels)" for value, count in found.items() if value not in allowed]
    if not unknown:
        return None
    listed = ", ".join(unknown[:8]) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
    return (
        f"{name}: found label values {listed} that are in no region. Allowed are "
        f"{', '.join(map(str, allowed))}, from the regions {dict(regions)}. The label map follows another convention: "
        "choose its name (brats2015, brats2021, brats2023, msd_brain_tumour) or regions of your own with --regions. "
        "Values of other structures are background with --background_labels '[VALUE, ...]'; a value of voxels whose "
        "label is unknown is --ignore_label VALUE (SegAN and L-SNet bundles)."
    )
