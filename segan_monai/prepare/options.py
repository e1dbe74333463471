# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings for preparing a data set."""

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
"""Axes to reverse for each flip: ``none``, ``x``, ``y``, ..., ``xyz``."""


@dataclass(frozen=True)
class PrepareOptions:
    """Settings for writing volumes and photographs; each command refuses settings without effect on its data set.

    Attributes:
        modalities: Images to use, in channel order. None selects all of a decathlon task, and T1c, T2 and FLAIR of
            BraTS, as the bundle expects.
        four_d: Whether to write several modalities to one file (H, W, D, channels), as MONAI Label requires; otherwise
            one file per modality.
        n4: Whether to correct the bias field of MR images.
        n4_shrink_factor: Factor by which the image is shrunk along each axis to estimate the field.
        spacing_mm: Voxel size to resample to, in mm: right, forward, up. None keeps the grid.
        strip_skull: Whether to set images of whole heads to 0 outside their label maps.
        label_flip: Flip of the label maps of Pancreas-CT relative to their series: ``auto`` to detect it, or a key of
            ``LABEL_FLIPS``.
        longest_side_px: Length to which photographs are reduced; None copies them unchanged.

    Raises:
        ConfigError: A value is out of range.
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
