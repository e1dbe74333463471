# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What a user may choose when a data set is prepared."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from segan_monai.errors import ConfigError

LABEL_FLIPS = {
    "".join("xyz"[axis] for axis in axes) or "none": axes
    for count in range(4)
    for axes in itertools.combinations(range(3), count)
}
"""Names of the ways in which stored axes can be reversed (``none``, ``x``, ``y``, ..., ``xyz``), and those axes."""


@dataclass(frozen=True)
class PrepareOptions:
    """How volumes and photographs are written; what changes nothing for a data set is refused by its command.

    Attributes:
        modalities: which images to take, and their order as channels; None for all of a decathlon task, and T1c, T2,
            FLAIR of BraTS (what the bundle wants).
        four_d: several modalities in one file (H, W, D, channels), which is what MONAI Label needs; else one file each.
        n4: correct the bias field of MR images.
        n4_shrink_factor: the field is estimated on an image so many times smaller along each axis.
        spacing_mm: resample to voxels of this size to the right, forward and up; None to keep the grid.
        strip_skull: images of whole heads become 0 outside their label maps.
        label_flip: how label maps of Pancreas-CT are stored against their series: ``auto`` to find out, or a key of
            `LABEL_FLIPS`.
        longest_side_px: photographs are reduced to this length; None to leave them as they are, byte for byte.

    Raises:
        ConfigError: a value out of range.
    """

    modalities: tuple[str, ...] | None = None
    four_d: bool = True
    n4: bool = False
    n4_shrink_factor: int = 4
    spacing_mm: tuple[float, float, float] | None = None
    strip_skull: bool = True
    label_flip: str = "auto"
    longest_side_px: int | None = None

    def __post_init__(self) -> None:
        if self.label_flip not in ("auto", *LABEL_FLIPS):
            raise ConfigError(f"label_flip is {self.label_flip!r}; expected auto, {', '.join(LABEL_FLIPS)}.")
        spacing = self.spacing_mm
        if spacing is not None and (len(spacing) != 3 or not all(math.isfinite(mm) and mm > 0 for mm in spacing)):
            raise ConfigError(f"spacing is {spacing}; expected three lengths in mm above 0, such as 1,1,1.")
        if self.n4_shrink_factor < 1 or (self.longest_side_px is not None and self.longest_side_px < 1):
            raise ConfigError(
                f"n4_shrink_factor={self.n4_shrink_factor}, longest_side={self.longest_side_px}: expected 1 or more."
            )
