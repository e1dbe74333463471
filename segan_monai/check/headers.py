# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Fast reading of image headers, without voxels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segan_monai.errors import DAMAGED, DataError, missing_file, unreadable
from segan_monai.file_kinds import ANALYZE, NIFTI, has_ending, is_gzip, is_picture
from segan_monai.grids import Grid, spans_space
from segan_monai.nifti import affine_in_mm, open_nifti
from segan_monai.transforms.case_loader import Header
from segan_monai.transforms.load_case import volume_shape
from segan_monai.volume_files import is_a_folder, itk_reader

_EXIF_ORIENTATION = 0x0112
_ROTATED = (5, 6, 7, 8)


def read_header(file: str | os.PathLike[str]) -> Header:
    """Read the header of a NIfTI, Analyze, MetaImage or NRRD volume, or of a picture.

    Raises:
        DataError: The file is missing, damaged or shorter than its header says; it does not have three spatial axes; or
            its affine is one that ``read_volume`` refuses too.
    """
    path = Path(file)
    if not path.exists():
        raise missing_file(path)
    if path.is_dir():
        raise is_a_folder(path)
    try:
        if is_picture(path):
            return _picture(path)
        header = _nibabel(path) if has_ending(path, (*NIFTI, *ANALYZE)) else _itk(path)
    except DataError:
        raise
    except Exception as error:  # nibabel: ImageFileError, EOFError, zlib.error, ...; PIL: SyntaxError, ...
        raise unreadable(path, error) from error
    if not spans_space(header.grid.shape, header.grid.affine):
        raise DataError(
            f"{path} has the affine {np.round(header.grid.affine, 4).tolist()}, which is singular, not finite, "
            "or of a size that no scan has. Expected finite numbers in mm and three independent axes; export the image "
            "again, or correct its header."
        )
    return header


def _nibabel(path: Path) -> Header:
    image = open_nifti(path)
    shape = volume_shape(path, image.shape, min(len(image.shape), 3))
    stored = np.dtype(image.get_data_dtype())
    if has_ending(path, NIFTI) and not is_gzip(path):
        needed = int(image.dataobj.offset) + int(np.prod(image.shape, dtype=np.int64)) * stored.itemsize
        if path.stat().st_size < needed:
            raise DataError(
                f"{path} cannot be read (it has {path.stat().st_size} bytes, its header declares {needed}). {DAMAGED}"
            )
    codes = [int(image.header[code]) for code in ("qform_code", "sform_code") if code in image.header]
    grid = Grid(str(path), shape[:3], affine_in_mm(image))
    return Header(grid, shape[3] if len(shape) > 3 else 1, str(stored.newbyteorder("=")), False, any(codes))


def _itk(path: Path) -> Header:
    import SimpleITK

    reader = itk_reader(path)
    size: Sequence[int] = reader.GetSize()
    components = reader.GetNumberOfComponents()
    shape = volume_shape(path, (*size, components) if components > 1 else size, min(len(size), 3))
    dimensions = len(size)
    direction = np.reshape(reader.GetDirection(), (dimensions, dimensions))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS
    kind = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    return Header(Grid(str(path), shape[:3], affine), shape[3] if len(shape) > 3 else 1, kind, False, True)


def _picture(path: Path) -> Header:
    with Image.open(path) as picture:
        columns, rows = picture.size
        if picture.getexif().get(_EXIF_ORIENTATION) in _ROTATED:
            columns, rows = rows, columns
        channels = 3 if picture.mode in ("RGB", "RGBA", "P") else 1
        return Header(Grid(str(path), (columns, rows, 1), np.eye(4)), channels, picture.mode, True, True)
