# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Strides of the down-sampling levels of SegAN's networks."""

from __future__ import annotations

from collections.abc import Sequence

from segan_monai.errors import ConfigError


def strides_of_levels(
    spatial_dims: int, num_levels: int, level_strides: Sequence[Sequence[int]] | None = None
) -> list[list[int]]:
    """Return the stride of each level along each axis.

    Args:
        spatial_dims: 2 or 3 axes.
        num_levels: number of levels.
        level_strides: strides of the first levels, 1 or 2 per axis; further ones are not used. None for none.

    Returns:
        ``num_levels`` lists of ``spatial_dims`` strides; 2 where ``level_strides`` gives none.

    Raises:
        ConfigError: ``spatial_dims`` is not 2 or 3, a level has another number of strides, or a stride is not 1 or 2.

    Examples:
        >>> strides_of_levels(3, 2, [[2, 2, 1]])
        [[2, 2, 1], [2, 2, 2]]
    """
    if spatial_dims not in (2, 3):
        raise ConfigError(f"spatial_dims is {spatial_dims}; expected 2 (slices) or 3 (volumes).")
    given = [list(stride) for stride in level_strides or []]
    for stride in given:
        if len(stride) != spatial_dims or not set(stride) <= {1, 2} or 2 not in stride:
            raise ConfigError(
                f"level_strides has {stride}; expected {spatial_dims} numbers per level, one per axis: 2 to halve it, "
                "1 to keep it, and at least one 2."
            )
    return (given + [[2] * spatial_dims] * num_levels)[:num_levels]
