# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Mirrored slices, described by the axes of their volume."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations

from torch import Tensor

from segan_monai.errors import ConfigError


def each_mirror_axis(mirror_axes: Sequence[int], dimensions: int = 3) -> tuple[int, ...]:
    """Return the axes along which images are mirrored, in ascending order.

    Args:
        mirror_axes: axes of the image, possibly none.
        dimensions: 3 for volumes in RAS order, 2 for photographs.

    Raises:
        ConfigError: if an axis is repeated or not one of the image's.
    """
    axes = tuple(mirror_axes) if isinstance(mirror_axes, Sequence) else (mirror_axes,)
    if len(set(axes)) < len(axes) or not set(axes) <= set(range(dimensions)):
        names = {3: "0 (left-right), 1 (front-back) and 2 (up-down)", 2: "0 (left-right) and 1 (up-down)"}[dimensions]
        raise ConfigError(f"mirror_axes is {mirror_axes}; expected a list of different axes out of {names}.")
    return tuple(sorted(axes))


def mirrored_views(mirror_axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return every combination of axes, beginning with none.

    Examples:
        >>> mirrored_views([0, 1])
        [(), (0,), (1,), (0, 1)]
    """
    return list(chain.from_iterable(combinations(mirror_axes, count) for count in range(len(mirror_axes) + 1)))


def mirror_slices(slices: Tensor, mirrored: Sequence[int], axis: int | None = 2, neighbours: int = 0) -> Tensor:
    """Return slices as they are cut from a volume that is mirrored along some of its axes.

    Along the slicing axis, the order of neighbouring slices is reversed.

    Args:
        slices: (..., C, U, V), or (..., (2 * neighbours + 1) * C, U, V), see ``neighbouring_slices``. Without ``axis``,
            volumes (..., C, H, W, D).
        mirrored: axes of the volume (H, W, D); of a photograph, 0 and 1.
        axis: axis of the volume that was cut into slices; None for volumes.
        neighbours: number of neighbouring slices on each side among the channels.

    Examples:
        >>> mirror_slices(torch.tensor([[[1, 2, 3]]]), [1]).tolist()
        [[[3, 2, 1]]]
    """
    if axis is None:
        return slices.flip([mirror - 3 for mirror in mirrored]) if mirrored else slices
    if neighbours and axis in mirrored:
        slices = slices.unflatten(-3, (2 * neighbours + 1, -1)).flip(-4).flatten(-4, -3)
    dims = [mirror - (mirror > axis) - 2 for mirror in mirrored if mirror != axis]
    return slices.flip(dims) if dims else slices
