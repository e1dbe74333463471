# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""NIfTI files that every program lays over the image they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.config import PathLike
from monai.data import NibabelWriter
from monai.data.image_writer import ImageWriter

from segan_monai.file_kinds import ANALYZE, NIFTI, has_ending
from segan_monai.volume_files import lazy_nifti

# all that places a volume in space
_PLACE = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


class InputGridWriter(NibabelWriter):
    """MONAI's `NibabelWriter` for `SaveImaged`, with the place in space taken from the input's own header.

    A NIfTI has two affines, and programs differ in which they believe where these disagree: nibabel the sform, ITK (3D
    Slicer, ITK-SNAP) often the qform. So both are copied from the (first) file in ``meta["source_files"]``, if that is
    a NIfTI of the same shape. And a volume of one slice stays a volume, which `NibabelWriter` makes a plane that has
    lost its third axis.

    Args:
        **settings: of `NibabelWriter`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.source: str = ""

    def set_data_array(
        self, data_array: Any, channel_dim: int | None = 0, squeeze_end_dims: bool = True, **kwargs: Any
    ) -> None:
        """Take (C, H, W, D) and keep (H, W, D), or (H, W, D, C) of several channels."""
        super().set_data_array(data_array, channel_dim, squeeze_end_dims=False, **kwargs)
        if squeeze_end_dims and self.data_obj.shape[-1] == 1:
            self.data_obj = self.data_obj[..., 0]

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = True, **options: Any) -> None:
        """See `NibabelWriter`."""
        super().set_metadata(meta_dict, resample, **options)
        self.source = str((meta_dict or {}).get("source_files", "")).split("\n")[0]

    def write(self, filename: PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write the file."""
        ImageWriter.write(self, filename, verbose=verbose)
        image = self.create_backend_obj(self.data_obj, affine=self.affine, dtype=self.output_dtype, **obj_kwargs)
        image.set_sform(image.affine, code=1)
        image.set_qform(image.affine, code=1)
        header = _nifti_header(self.source)
        if header is not None and header.get_data_shape()[:3] == image.shape[:3]:
            for field in _PLACE:
                image.header[field] = header[field]
            image.header["pixdim"][:4] = header["pixdim"][:4]
            image = nibabel.Nifti1Image(np.asanyarray(image.dataobj), None, image.header)
        nibabel.save(image, filename)


def _nifti_header(file: str) -> nibabel.Nifti1Header | None:
    """Header of a NIfTI; None for any other file."""
    if not has_ending(file, (*NIFTI, *ANALYZE)) or not Path(file).is_file():
        return None
    header = lazy_nifti(Path(file)).header
    return header if isinstance(header, nibabel.Nifti1Header) else None
