# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What the header of an image file says; no voxel is read, so ten thousand take seconds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from segan_monai.errors import DAMAGED, DataError, missing_file, unreadable
from segan_monai.file_kinds import ANALYZE, NIFTI, has_ending, is_gzip, is_picture
from segan_monai.grids import Grid
from segan_monai.transforms.load_case import volume_shape
from segan_monai.volume_files import affine_of_nibabel, is_a_folder, itk_reader, lazy_nifti

_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
        grid: name, (H, W, D) and affine; of a picture (columns, rows, 1) and pixels of 1 mm.
        channels: number of channels; 1 of a picture in grey, 3 of one in colour.
        dtype: type of the stored voxels, such as ``int16``.
        is_picture: whether the spacing means nothing.
        placed: whether the header says where the volume lies; if not, the affine is a default.
    """

    grid: Grid
    channels: int
    dtype: str
    is_picture: bool
    placed: bool


def read_header(file: str | os.PathLike[str]) -> Header:
    """Read the header of a NIfTI, Analyze, MetaImage or NRRD volume, or of a picture.

    Raises:
        DataError: the file is missing or damaged, is shorter than its header says, has not three spatial axes, or an
            affine that is not finite or has an axis of length 0.
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
    axes = header.grid.affine[:3, :3]
    if not np.isfinite(header.grid.affine).all() or not np.linalg.norm(axes, axis=0).all() or not np.linalg.det(axes):
        raise DataError(
            f"{path} has the affine {np.round(header.grid.affine, 4).tolist()}, which places its voxels nowhere. "
            "Expected finite numbers and three axes that differ; export the image again, or correct its header."
        )
    return header


def _nibabel(path: Path) -> Header:
    image = lazy_nifti(path)
    shape = volume_shape(path, image.shape, min(len(image.shape), 3))
    stored = np.dtype(image.get_data_dtype())
    if has_ending(path, NIFTI) and not is_gzip(path):
        needed = int(image.dataobj.offset) + int(np.prod(image.shape, dtype=np.int64)) * stored.itemsize
        if path.stat().st_size < needed:
            raise DataError(
                f"{path} cannot be read (it has {path.stat().st_size} bytes, its header announces {needed}). {DAMAGED}"
            )
    codes = [int(image.header[code]) for code in ("qform_code", "sform_code") if code in image.header]
    grid = Grid(str(path), shape[:3], affine_of_nibabel(image))
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
        if picture.getexif().get(_EXIF_ORIENTATION) in _TURNED:
            columns, rows = rows, columns
        channels = 3 if picture.mode in ("RGB", "RGBA", "P") else 1
        return Header(Grid(str(path), (columns, rows, 1), np.eye(4)), channels, picture.mode, True, True)
