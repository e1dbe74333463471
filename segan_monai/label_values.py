# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Label values of regions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def label_values(regions: Mapping[str, Iterable[int]]) -> list[int]:
    """Return the label values that any region has, sorted, each once.

    Examples:
        >>> label_values({"whole_tumour": [1, 2, 4], "enhancing_tumour": [4]})
        [1, 2, 4]
    """
    return sorted({value for of_region in regions.values() for value in of_region})
