# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Conversion between overlapping regions and exclusive classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from segan_monai.label_values import label_values


def exclusive_classes(regions: Mapping[str, Sequence[int]]) -> Tensor:
    """Split overlapping regions into exclusive classes, not counting background.

    Label values that belong to the same regions form one class, because no region distinguishes them.

    Args:
        regions: label values of each of the K regions.

    Returns:
        (N, K) bool: whether each of the N classes belongs to each region. The order of the classes depends only on how
        the regions overlap, so weights fit every label convention with the same regions.

    Examples:
        >>> exclusive_classes({"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}).int().tolist()
        [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    """
    values = label_values(regions)
    signatures = {tuple(value in of_region for of_region in regions.values()) for value in values}
    return torch.tensor(sorted(signatures, reverse=True))


def regions_to_classes(maps: Tensor, classes: Tensor) -> Tensor:
    """Convert region maps to one-hot class maps.

    Args:
        maps: (B, K, ...), 0 or 1, one map per region.
        classes: (N, K) from ``exclusive_classes``.

    Returns:
        (B, 1 + N, ...), one-hot, with the dtype of ``maps``; background first.
    """
    inside = classes.to(maps).reshape(1, *classes.shape, *[1] * (maps.ndim - 2))
    found = (maps.unsqueeze(1) == inside).all(dim=2)
    return torch.cat([~found.any(dim=1, keepdim=True), found], dim=1).to(maps)


def class_to_region_logits(logits: Tensor, classes: Tensor) -> Tensor:
    """Convert softmax logits of exclusive classes to region logits.

    The sigmoid of a region's logit equals the sum of the softmax probabilities of its classes.

    Args:
        logits: (B, 1 + N, ...), background first.
        classes: (N, K) from ``exclusive_classes``.

    Returns:
        Region logits (B, K, ...).
    """
    inside = torch.cat([torch.zeros_like(classes[:1]), classes]).T
    inside = inside.reshape([1, inside.shape[0], inside.shape[1]] + [1] * (logits.ndim - 2))
    spread, nothing = logits.unsqueeze(1), torch.full_like(logits, -torch.inf).unsqueeze(1)
    within = torch.where(inside, spread, nothing).logsumexp(2)
    return within - torch.where(inside, nothing, spread).logsumexp(2)
