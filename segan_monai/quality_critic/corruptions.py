# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Corruptions of right masks, which teach the quality critic what is wrong with masks that no network would predict."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("box", "jigsaw", "zeros", "shift", "dilation", "erosion", "other")
MOST_STEPS = 4
"""Largest number of voxels by which a mask grows or shrinks."""
LARGEST_SHIFT = 0.25
"""Largest shift in the plane, as a share of the slice."""
BLOCK = 5
"""Smallest side of the pieces of a jigsaw, in voxels."""


def corrupted(masks: Tensor, kind: str, other: Tensor, random: np.random.RandomState) -> Tensor:
    """Return a corrupted copy of masks (D, K, S, S), values from 0 to 1.

    - ``box``: a box in the plane, through some slices, is emptied or filled with one region.
    - ``jigsaw``: pieces around the masks change places.
    - ``zeros``: one region, or all, are empty.
    - ``shift``: moved in the plane, and by a few slices.
    - ``dilation``, ``erosion``: grown or shrunk in the plane by one to ``MOST_STEPS`` voxels.
    - ``other``: the masks of another case.

    Args:
        masks: of one case.
        kind: one of ``KINDS``.
        other: masks of another case, (D', K, S, S).
        random: source of all choices.

    Raises:
        ValueError: The kind is none of ``KINDS``.
    """
    if kind == "box":
        return _box(masks, random)
    if kind == "jigsaw":
        return _jigsaw(masks, random)
    if kind == "zeros":
        return _zeros(masks, random)
    if kind == "shift":
        return _shifted(masks, random)
    if kind in ("dilation", "erosion"):
        steps = int(random.randint(1, MOST_STEPS + 1))
        grown = F.max_pool2d(masks if kind == "dilation" else 1 - masks, 2 * steps + 1, 1, steps)
        return grown if kind == "dilation" else 1 - grown
    if kind == "other":
        depth, size = masks.shape[0], masks.shape[-1]
        return F.adaptive_avg_pool3d(other.transpose(0, 1)[None], (depth, size, size))[0].transpose(0, 1).contiguous()
    raise ValueError(f"kind {kind!r}; expected one of {', '.join(KINDS)}")


def _box(masks: Tensor, random: np.random.RandomState) -> Tensor:
    result = masks.clone()
    depth, regions, size = masks.shape[:3]
    sides = random.randint(size // 8, size // 2 + 1, 2)
    rows, columns = (int(start) for start in random.randint(0, size - sides + 1))
    thick = int(random.randint(1, depth + 1))
    first = int(random.randint(0, depth - thick + 1))
    if random.rand() < 0.5:  # on the masks, where an empty box matters
        rows, columns = _start_inside(masks, sides, random)
    of_rows, of_columns = _from(rows, columns, sides)
    slices = slice(first, first + thick)
    result[slices, :, of_rows, of_columns] = 0
    if random.rand() < 0.5:
        result[slices, int(random.randint(regions)), of_rows, of_columns] = 1
    return result


def _start_inside(masks: Tensor, sides: np.ndarray, random: np.random.RandomState) -> tuple[int, int]:
    where = (masks.amax((0, 1)) > 0.5).nonzero()
    if not len(where):
        return 0, 0
    centre = where[int(random.randint(len(where)))].numpy()
    start = np.clip(centre - sides // 2, 0, masks.shape[-1] - sides)
    return int(start[0]), int(start[1])


def _from(rows: int, columns: int, sides: np.ndarray) -> tuple[slice, slice]:
    return slice(rows, rows + int(sides[0])), slice(columns, columns + int(sides[1]))


def _jigsaw(masks: Tensor, random: np.random.RandomState) -> Tensor:
    where = (masks.amax((0, 1)) > 0).nonzero()
    if not len(where):
        return masks.clone()
    size = masks.shape[-1]
    low, high = where.amin(0), where.amax(0) + 1
    pieces = int(random.choice((2, 3, 4)))
    side = max(int((high - low).max()) // pieces + 1, BLOCK)
    side = min(side, size // pieces)
    start = [min(int(value), size - side * pieces) for value in low]
    result = masks.clone()
    places = [(start[0] + side * row, start[1] + side * column) for row in range(pieces) for column in range(pieces)]
    sides = np.array([side, side])
    for place, source in zip(places, random.permutation(len(places)), strict=True):
        rows, columns = _from(place[0], place[1], sides)
        from_rows, from_columns = _from(places[source][0], places[source][1], sides)
        result[..., rows, columns] = masks[..., from_rows, from_columns]
    return result


def _zeros(masks: Tensor, random: np.random.RandomState) -> Tensor:
    result = masks.clone()
    region = int(random.randint(-1, masks.shape[1]))
    result[:, slice(None) if region < 0 else region] = 0
    return result


def _shifted(masks: Tensor, random: np.random.RandomState) -> Tensor:
    depth, size = masks.shape[0], masks.shape[-1]
    most = max(1, round(LARGEST_SHIFT * size))
    slices = max(1, depth // 8)
    steps = [int(random.randint(-limit, limit + 1)) for limit in (slices, most, most)]
    result = masks
    for axis, step in zip((0, 2, 3), steps, strict=True):
        length = masks.shape[axis]
        step = max(-length, min(length, step))
        kept = result.narrow(axis, max(0, -step), length - abs(step))
        shape = list(result.shape)
        shape[axis] = abs(step)
        parts = [torch.zeros(shape), kept] if step > 0 else [kept, torch.zeros(shape)]
        result = torch.cat(parts, axis)
    return result
