# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Post-processing of each region by a rule: threshold, filled holes, smallest connected component that is kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy import ndimage

from segan_monai.errors import ConfigError


class RegionRule(NamedTuple):
    """What is kept of a region; its numbers are applied in this order: threshold, holes, components.

    Attributes:
        threshold: a voxel is in the region if its probability is at least this; above 0, below 1.
        smallest_fraction: components with less than this fraction of the largest one's voxels are removed, 0 to 1.
        smallest_voxels: components with fewer voxels are removed.
        fill_holes: whether to fill cavities that the region encloses on all sides (of a photograph or a single
            slice, in its plane).
    """

    threshold: float = 0.5
    smallest_fraction: float = 0.0
    smallest_voxels: int = 0
    fill_holes: bool = False


def region_rules(rules: Mapping[str, Mapping[str, float | bool]], regions: Sequence[str]) -> list[RegionRule]:
    """Return the rule of every region, in their order; a region that is not named has the default.

    Raises:
        ConfigError: A name or a number is wrong.
    """
    if unknown := [name for name in rules if name not in regions]:
        raise ConfigError(f"region_rules names '{unknown[0]}'; expected names of regions: {', '.join(regions)}.")
    return [_rule(name, rules.get(name, {})) for name in regions]


def _rule(region: str, values: Any) -> RegionRule:
    fits = isinstance(values, Mapping) and set(values) <= set(RegionRule._fields)
    numbers = [value for key, value in values.items() if key != "fill_holes"] if fits else []
    fits = fits and isinstance(values.get("fill_holes", False), bool)
    if not fits or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise ConfigError(
            f"region_rules of '{region}' is {values!r}; expected numbers under {', '.join(RegionRule._fields[:-1])}, "
            "and true or false under fill_holes."
        )
    rule = RegionRule(**values)
    if not (0 < rule.threshold < 1 and 0 <= rule.smallest_fraction <= 1 and rule.smallest_voxels >= 0):
        raise ConfigError(
            f"region_rules of '{region}' is {dict(values)}; expected a threshold above 0 and below 1, a "
            "smallest_fraction from 0 to 1 and smallest_voxels of at least 0."
        )
    return rule


def label_components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label connected components; voxels that share a face, an edge or a corner are connected.

    Args:
        mask: boolean (H, W) or (H, W, D).

    Returns:
        The components from 1 on, 0 outside; and the voxels of each, that of the outside set to 0.
    """
    labelled, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)
    sizes[0] = 0
    return labelled, sizes


def kept_components(sizes: np.ndarray, rule: RegionRule) -> np.ndarray:
    """Return which components of ``label_components`` a rule keeps; never the outside."""
    return (sizes > 0) & (sizes >= rule.smallest_fraction * sizes.max()) & (sizes >= rule.smallest_voxels)


def threshold_mask(probability: np.ndarray, threshold: float, fill_holes: bool) -> np.ndarray:
    """Return where a probability (H, W[, D]) reaches a threshold, with or without the holes."""
    mask = probability >= threshold
    # nothing is enclosed on the third axis of a single slice
    return ndimage.binary_fill_holes(mask.squeeze()).reshape(mask.shape) if fill_holes else mask


def region_mask(probability: np.ndarray, rule: RegionRule) -> np.ndarray:
    """Return the voxels (H, W[, D]) of a region that a rule keeps, from their probabilities."""
    mask = threshold_mask(probability, rule.threshold, rule.fill_holes)
    if not (rule.smallest_fraction or rule.smallest_voxels) or not mask.any():
        return mask
    labelled, sizes = label_components(mask)
    return kept_components(sizes, rule)[labelled]


class RegionRulesd(MapTransform):
    """Apply the rule of each region to its probabilities.

    Where a region is kept, its probability p becomes (1 + p) / 2, elsewhere 0. ``RegionsToLabelMapd`` with its usual
    threshold of 0.5 then makes the label map; of exclusive regions, the more probable one still wins. Use it on the
    grid of the original image, after ``Invertd``.

    Args:
        keys: probabilities (K, H, W[, D]).
        regions: names of the K regions, in channel order.
        rules: values of ``RegionRule`` by region; regions without any have the threshold 0.5 alone.

    Raises:
        ConfigError: A name or a number is wrong.
    """

    def __init__(
        self, keys: KeysCollection, regions: Sequence[str], rules: Mapping[str, Mapping[str, float | bool]] | None
    ) -> None:
        super().__init__(keys)
        self.rules = region_rules(rules or {}, list(regions))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with changed probabilities; the metadata stay."""
        result = dict(data)
        for key in self.key_iterator(result):
            maps = convert_to_tensor(result[key], track_meta=False)
            masks = [region_mask(p.cpu().numpy(), rule) for p, rule in zip(maps, self.rules, strict=True)]
            kept = torch.from_numpy(np.stack(masks)).to(maps.device)
            result[key] = convert_to_dst_type((1 + maps) / 2 * kept, result[key])[0]
        return result
