# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Figure of an evaluation with the RoIs of a two-stage network."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from segan_monai.inferers.roi_slices import RoISliceInferer
from segan_monai.pictures.overlay_picture import OverlayPicture


class RoIPicture(OverlayPicture):
    """``OverlayPicture`` with the boxes of the RoIs, without margin, as dotted lines.

    Args:
        inferer: the evaluator's inferer, for volumes in RAS order along their last axis.
        **settings: arguments of ``OverlayPicture``.
    """

    def __init__(self, inferer: RoISliceInferer, **settings: Any) -> None:
        super().__init__(**settings)
        self.inferer = inferer

    def boxes(self, number: int, z: int) -> list[NDArray[Any]]:
        """Return the RoI boxes on a slice; in a plane (X, Y), rows are along x and columns along y."""
        if self.inferer.found is None:
            return []
        table = self.inferer.found.numpy()
        rows = table[(table[:, 0] == number) & (table[:, 1] == z), 4:]
        return [row[[1, 0, 3, 2]] for row in rows]
