# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Strict readers for volumes: the complete content, or an error if it contradicts the header."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel
import numpy as np

from segan_monai.case_names import path_for_simpleitk
from segan_monai.errors import DAMAGED, DataError, missing_file, unreadable
from segan_monai.file_kinds import ANALYZE, NIFTI, has_ending, is_dicom, is_gzip
from segan_monai.grids import LARGEST_EXTENT_MM, LEAST_SPACING_MM, spans_space
from segan_monai.nifti import affine_in_mm, kind_of_nifti, open_by_content, open_nifti

if TYPE_CHECKING:
    import SimpleITK

DEFLATE_AT_MOST = 1032
"""Maximum compression ratio of deflate (gzip)."""
_CHUNK = 2**22
_ITK_READERS = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO"}


class Volume(NamedTuple):
    """Content of a volume file.

    Attributes:
        values: (H, W), (H, W, D) or (H, W, D, ...), scaled as the header says, of any real numeric type.
        affine: (4, 4), from voxel indices to mm in the RAS frame.
    """

    values: np.ndarray
    affine: np.ndarray


def read_volume(file: Path) -> Volume:
    """Read NIfTI-1, NIfTI-2 and Analyze with nibabel, and MetaImage, NRRD and other formats with SimpleITK.

    Headers are interpreted as in the NIfTI C library, and affines are in mm; see ``segan_monai.nifti``. Whether a NIfTI
    is compressed is decided by its content, not its name.

    The size that a header declares is compared with the file size before memory is allocated, and the gzip checksum is
    verified.

    Raises:
        DataError: The path does not exist or is a folder; the file is truncated, damaged, of another format or a colour
            DICOM; the voxels are not real numbers; the affine is not finite, not invertible or implausible (a voxel
            below 0.0001 mm or a volume above 10 m [ours]).
    """
    if not file.exists():
        raise missing_file(file)
    if file.is_dir():
        raise is_a_folder(file)
    try:
        if has_ending(file, NIFTI):
            volume = _of_nibabel(_open_nifti(file))
        elif has_ending(file, ANALYZE):
            volume = _of_nibabel(open_nifti(file))
        else:
            volume = _read_itk(file)
    except DataError:
        raise
    except Exception as error:  # OSError, EOFError, zlib.error, HeaderDataError, OverflowError, RuntimeError, ...
        raise unreadable(file, error, f"{DAMAGED} Expected a NIfTI, Analyze, MetaImage or NRRD volume.") from error
    if volume.values.dtype.kind not in "iubf" or 0 in volume.values.shape:
        raise DataError(
            f"{file} contains {volume.values.dtype} values of shape {volume.values.shape}. Expected one real number "
            "per voxel and channel, and at least one voxel; convert colours or complex numbers first."
        )
    _check_affine(file, volume)
    return volume


def is_a_folder(file: Path) -> DataError:
    """Return the error for a folder where a file is expected."""
    return DataError(
        f"{file} is a folder. Expected a file; convert a folder of DICOM files to one NIfTI first, for example with "
        "dcm2niix or 3D Slicer."
    )


def _of_nibabel(image: Any) -> Volume:
    return Volume(np.asanyarray(image.dataobj), affine_in_mm(image))


def _open_nifti(file: Path) -> nibabel.Nifti1Image | nibabel.Nifti2Image:
    """Open a NIfTI and check that it is complete. Gzipped files are decompressed; others stay on disk."""
    compressed = is_gzip(file)
    stored = file.stat().st_size
    with open_by_content(file) as stream:
        start = stream.read(544)
        kind = kind_of_nifti(start)
        header = kind.header_class(start[: kind.header_class.sizeof_hdr])
        shape = header.get_data_shape()
        if not shape or min(shape) < 1:
            raise ValueError(f"the header declares the shape {shape}")
        last_axis = math.prod(shape[:-1]) * header.get_data_dtype().itemsize
        declared = header.get_data_offset() + last_axis * shape[-1]
        what = f"the header declares the shape {shape} of {header.get_data_dtype()}, {declared} bytes"
        if declared > stored * (DEFLATE_AT_MOST if compressed else 1):
            raise EOFError(f"{what}; the file has {stored}{', compressed' if compressed else ''}")
        chunks, missing = [start], declared - len(start)
        while compressed and missing > 0 and (chunk := stream.read(min(missing, _CHUNK))):
            chunks.append(chunk)
            missing -= len(chunk)
        if compressed and missing > 0:
            raise EOFError(f"{what}; the file has {declared - missing}")
        beyond = max(-missing, 0) if compressed else stored - declared
        while (
            compressed and beyond < last_axis and (chunk := stream.read(_CHUNK))
        ):  # reaching the end verifies gzip's checksum
            beyond += len(chunk)
        if beyond >= last_axis:
            raise ValueError(f"{what}; at least {beyond} bytes follow, so the shape is wrong")
    if compressed:
        return kind.from_bytes(b"".join(chunks))
    if has_ending(file, ".gz"):  # nibabel would try to decompress it
        return kind.from_bytes(file.read_bytes())
    holder = nibabel.FileHolder(filename=str(file))
    return kind.from_file_map({"header": holder, "image": holder})


def itk_reader(file: Path) -> SimpleITK.ImageFileReader:
    """Return an ITK reader that has read the header of a MetaImage, NRRD or other file, see ``read_volume``.

    Raises:
        DataError: The file is a colour DICOM.
        RuntimeError: ITK cannot read the file.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(path_for_simpleitk(file))
    if image_io := _ITK_READERS.get(file.suffix.lower()):  # by itself, ITK does not recognize .MHA
        reader.SetImageIO(image_io)
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() > 1 and is_dicom(file):
        raise colour_dicom(file)
    return reader


def colour_dicom(file: str | os.PathLike[str]) -> DataError:
    """Return the error for a DICOM file with colour pixels."""
    return DataError(
        f"{file} is a colour DICOM: a screen capture, ultrasound or fused image, not measured values of one channel. "
        "Expected grey values (SamplesPerPixel 1): use the original series, and move this file elsewhere."
    )


def _read_itk(file: Path) -> Volume:
    import SimpleITK

    reader = itk_reader(file)
    # every component has at least one byte
    least = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
    stored = file.stat().st_size
    if file.suffix.lower() not in (".mhd", ".nhdr") and least > stored * DEFLATE_AT_MOST:
        raise EOFError(f"the header declares the shape {reader.GetSize()}; the file has {stored} bytes")
    image = reader.Execute()
    values = SimpleITK.GetArrayFromImage(image)
    axes = tuple(reversed(range(image.GetDimension())))
    components = (image.GetDimension(),) if image.GetNumberOfComponentsPerPixel() > 1 else ()
    return Volume(values.transpose(*axes, *components), affine_of_simpleitk(image))


def affine_of_simpleitk(image: SimpleITK.Image) -> np.ndarray:
    """Return the affine in the RAS frame. ITK uses LPS, so the first two world axes change sign."""
    dimensions = min(image.GetDimension(), 3)
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (image.GetDimension(), -1))[:dimensions, :dimensions]
    affine[:dimensions, :dimensions] = direction * np.array(image.GetSpacing()[:dimensions])
    affine[:dimensions, 3] = image.GetOrigin()[:dimensions]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _check_affine(file: Path, volume: Volume) -> None:
    if spans_space(volume.values.shape, volume.affine):
        return
    sizes = np.linalg.norm(volume.affine[:3, :3], axis=0)
    sides = np.array([*volume.values.shape[:3], 1, 1][:3])
    raise DataError(
        f"{file}: the affine {np.round(volume.affine[:3], 6).tolist()} gives voxels of {sizes.tolist()} mm and a shape "
        f"of {sides.tolist()}; expected three finite axes that span space, voxels of at least {LEAST_SPACING_MM:g} mm "
        f"and a volume of at most {LARGEST_EXTENT_MM:g} mm. Correct the header (voxel size, qform, sform or space "
        "directions), or export the image again."
    )
