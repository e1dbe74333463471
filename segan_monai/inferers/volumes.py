# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Choice of the inferer for volumes by the number of the network's axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segan_monai.errors import ConfigError
from segan_monai.inferers.agreement import Agreement
from segan_monai.inferers.slices import VolumeSliceInferer
from segan_monai.inferers.windows import VolumeWindowInferer


def volume_inferer(
    spatial_dims: int = 2,
    *,
    patch_size: Sequence[int] = (),
    window_overlap: float | None = None,
    window_batch_size: int = 1,
    amp: bool = False,
    skip_empty: bool = True,
    mirror_axes: Sequence[int] = (),
    case_statistics: float = 0.0,
    agreement: Agreement | None = None,
    **of_slices: Any,
) -> VolumeSliceInferer | VolumeWindowInferer:
    """Return the inferer that applies a 2-D or a 3-D network to volumes.

    Args:
        spatial_dims: 2 for ``VolumeSliceInferer``, 3 for ``VolumeWindowInferer``.
        patch_size: 3-D: voxels of a window along each axis.
        window_overlap: overlap of windows as a share of their size. 3-D: None for 0.5. 2-D: None for whole planes.
        window_batch_size: 3-D: windows per batch.
        amp: mixed precision.
        skip_empty: skip what is 0 in every channel.
        mirror_axes: axes along which volumes are mirrored.
        case_statistics: 2-D: share of the case's own statistics in batch norm layers; 3-D: 0.
        agreement: receives the overlap of the outputs that are averaged; None to compare none.
        **of_slices: 2-D: other arguments of ``VolumeSliceInferer``.

    Raises:
        ConfigError: if ``case_statistics`` is not 0 in 3-D, or an argument is out of range.
    """
    if spatial_dims == 2:
        return VolumeSliceInferer(
            amp=amp,
            skip_empty=skip_empty,
            mirror_axes=mirror_axes,
            window_overlap=window_overlap,
            case_statistics=case_statistics,
            agreement=agreement,
            **of_slices,
        )
    if case_statistics:
        raise ConfigError(
            f"case_statistics is {case_statistics} with spatial_dims 3; it works with slices only. Set it to 0."
        )
    return VolumeWindowInferer(
        patch_size,
        overlap=0.5 if window_overlap is None else window_overlap,
        sw_batch_size=window_batch_size,
        amp=amp,
        skip_empty=skip_empty,
        mirror_axes=mirror_axes,
        agreement=agreement,
    )
