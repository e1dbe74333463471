# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Resampling that ignores the other entries of a case."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Spacingd


class IsolatedSpacingd(Spacingd):
    """MONAI's ``Spacingd``, applied to a dictionary of its keys only.

    ``Spacingd`` of MONAI 1.6 treats every entry whose name begins with ``image_`` as metadata of ``image`` and writes
    to it. This fails for text, such as the ``image_path`` that MONAI Label adds to a case.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample the keys; everything else in ``data`` is kept as it is."""
        case = dict(data)
        return case | super().__call__({key: case[key] for key in self.key_iterator(case)}, lazy)
