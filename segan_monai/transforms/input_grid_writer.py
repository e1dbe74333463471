# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""NIfTI writer that preserves the position of the source image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
from monai.config import PathLike
from monai.data import NibabelWriter
from monai.data.image_writer import ImageWriter

from segan_monai.file_kinds import ANALYZE, NIFTI, has_ending
from segan_monai.nifti import place_like


class InputGridWriter(NibabelWriter):
    """MONAI's ``NibabelWriter`` for ``SaveImaged``, with the position in space copied from the input's header.

    The input is the first file in ``meta["source_files"]``, if it is a NIfTI of the same shape; see
    ``segan_monai.nifti.place_like``. A volume of one slice keeps its third axis, which ``NibabelWriter`` would drop.

    Args:
        **settings: arguments of ``NibabelWriter``.

    Attributes:
        scl_slope: factor by which readers multiply the stored integers; None for none.
    """

    scl_slope: float | None = None

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.source: str = ""

    def set_data_array(
        self, data_array: Any, channel_dim: int | None = 0, squeeze_end_dims: bool = True, **kwargs: Any
    ) -> None:
        """Convert (C, H, W, D) to (H, W, D), or to (H, W, D, C) if there are several channels."""
        super().set_data_array(data_array, channel_dim, squeeze_end_dims=False, **kwargs)
        if squeeze_end_dims and self.data_obj.shape[-1] == 1:
            self.data_obj = self.data_obj[..., 0]

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = True, **options: Any) -> None:
        """Set the metadata as ``NibabelWriter`` does, and remember the source file."""
        super().set_metadata(meta_dict, resample, **options)
        self.source = str((meta_dict or {}).get("source_files", "")).split("\n")[0]

    def write(self, filename: PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write the file."""
        ImageWriter.write(self, filename, verbose=verbose)
        image = self.create_backend_obj(self.data_obj, affine=self.affine, dtype=self.output_dtype, **obj_kwargs)
        source = Path(self.source)
        is_nifti = has_ending(source, (*NIFTI, *ANALYZE)) and source.is_file()
        image = place_like(source if is_nifti else None, image)
        if self.scl_slope is not None:
            image.header.set_slope_inter(self.scl_slope, 0)
        nibabel.save(image, filename)
