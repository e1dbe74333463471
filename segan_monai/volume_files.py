# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Volumes from files: the whole content or an error, whatever the header claims."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import SimpleITK

from segan_monai.case_names import path_for_simpleitk
from segan_monai.errors import DAMAGED, DataError, missing_file, unreadable
from segan_monai.file_kinds import ANALYZE, NIFTI, has_ending, is_dicom, is_gzip
from segan_monai.nifti import Nifti1Pair, kind_of_nifti, open_by_content, raw_header

DEFLATE_AT_MOST = 1032
"""No stream of deflate (gzip) becomes more bytes than this many times its own."""
LEAST_SPACING_MM = 1e-4
LARGEST_EXTENT_MM = 1e4
_CHUNK = 2**22
_MM_OF_UNIT = {1: 1000.0, 3: 0.001}  # NIfTI's codes of metre and micron; everything else is mm, as for ITK
_ITK_READERS = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO"}


class Volume(NamedTuple):
    """What a file holds.

    Attributes:
        values: (H, W), (H, W, D) or (H, W, D, ...), scaled as the header says, of any type that is a number.
        affine: (4, 4), from voxel indices to mm in the RAS frame.
    """

    values: np.ndarray
    affine: np.ndarray


def read_volume(file: Path) -> Volume:
    """Read NIfTI (1 and 2) and Analyze with nibabel, MetaImage, NRRD and the like with SimpleITK.

    Headers are read as the NIfTI C library reads them, see `segan_monai.nifti`. Of a NIfTI's two affines the sform is
    taken, as nibabel does. The qform is taken where there is one and the sform leads to an atlas (codes from 3 on) with
    voxels of another size than the header gives: an atlas has no patient's millimetres. If the header counts in metres
    or microns, the affine is converted to mm, as ITK does and nibabel does not. The content of a NIfTI, not its name,
    decides whether it is compressed.

    The sizes that a header declares are compared with that of the file before anything is allocated, and gzip's
    checksum is compared.

    Raises:
        DataError: no such file, or a folder; one that is truncated, damaged or of another format; DICOM in colour;
            voxels that are no real numbers;
            an affine that is not finite, not invertible, or of a size that no scanner has: a voxel below 0.0001 mm or
            a volume above 10 m [ours].
    """
    if not file.exists():
        raise missing_file(file)
    if file.is_dir():
        raise is_a_folder(file)
    try:
        if has_ending(file, NIFTI):
            volume = _of_nibabel(_open_nifti(file))
        elif has_ending(file, ANALYZE):
            volume = _of_nibabel(_open_pair(file))
        else:
            volume = _read_itk(file)
    except DataError:
        raise
    except Exception as error:  # OSError, EOFError, zlib.error, HeaderDataError, OverflowError, RuntimeError, ...
        raise unreadable(file, error, f"{DAMAGED} Expected a NIfTI, Analyze, MetaImage or NRRD volume.") from error
    if volume.values.dtype.kind not in "iubf" or 0 in volume.values.shape:
        raise DataError(
            f"{file} holds {volume.values.dtype} in the shape {volume.values.shape}. Expected real numbers, one a "
            "voxel and channel, and at least one voxel; convert colours or complex numbers first."
        )
    _check_affine(file, volume)
    return volume


def is_a_folder(file: Path) -> DataError:
    """The error of a folder where a file is expected."""
    return DataError(
        f"{file} is a folder. Expected a file; convert a folder of DICOM files to one NIfTI first, for example with "
        "dcm2niix or 3D Slicer."
    )


def _of_nibabel(image: Any) -> Volume:
    return Volume(np.asanyarray(image.dataobj), affine_of_nibabel(image))


def affine_of_nibabel(image: Any) -> np.ndarray:
    """The affine (4, 4) in mm of a nibabel image that is believed, see `read_volume`."""
    affine = np.array(image.affine, dtype=float)
    if not isinstance(image, nibabel.Nifti1Pair):
        return affine
    if _leads_to_an_atlas(image.header):
        spacing = image.header.get_zooms()[:3]
        if not np.allclose(nibabel.affines.voxel_sizes(affine)[: len(spacing)], spacing):
            affine = np.array(image.get_qform(), dtype=float)
    affine[:3] *= _MM_OF_UNIT.get(int(image.header["xyzt_units"]) & 7, 1.0)
    return affine


def _leads_to_an_atlas(header: nibabel.Nifti1Header) -> bool:
    """Whether the sform says Talairach, MNI or another template, and there is a qform beside it."""
    return header["sform_code"] >= 3 and header["qform_code"] > 0


def lazy_nifti(file: Path) -> Any:
    """Open a NIfTI or Analyze with nibabel, which reads the header only; compressed or not by content, not by name."""
    if has_ending(file, ANALYZE):
        return _open_pair(file)
    # by hand, because nibabel goes by the name, and knows .nii and .NII but not .Nii
    stream = open_by_content(file)
    kind = kind_of_nifti(stream.read(4))
    stream.seek(0)
    holder = nibabel.FileHolder(fileobj=stream)
    return kind.from_file_map({"header": holder, "image": holder})


def _open_pair(file: Path) -> Any:
    """A header and an image file: NIfTI or Analyze."""
    return nibabel.load(file) if raw_header(file) is None else Nifti1Pair.from_filename(file)


def _open_nifti(file: Path) -> nibabel.Nifti1Image | nibabel.Nifti2Image:
    """A NIfTI of which all voxels are there; gzipped ones are decompressed, others stay on disk."""
    compressed = is_gzip(file)
    stored = file.stat().st_size
    with open_by_content(file) as stream:
        start = stream.read(544)
        kind = kind_of_nifti(start)
        header = kind.header_class(start[: kind.header_class.sizeof_hdr])
        shape = header.get_data_shape()
        if not shape or min(shape) < 1:
            raise ValueError(f"its header declares the shape {shape}")
        last_axis = math.prod(shape[:-1]) * header.get_data_dtype().itemsize
        declared = header.get_data_offset() + last_axis * shape[-1]
        what = f"its header declares the shape {shape} of {header.get_data_dtype()}, {declared} bytes"
        if declared > stored * (DEFLATE_AT_MOST if compressed else 1):
            raise EOFError(f"{what}; the file has {stored}{', compressed' if compressed else ''}")
        chunks, missing = [start], declared - len(start)
        while compressed and missing > 0 and (chunk := stream.read(min(missing, _CHUNK))):
            chunks.append(chunk)
            missing -= len(chunk)
        if compressed and missing > 0:
            raise EOFError(f"{what}; the file has {declared - missing}")
        beyond = max(-missing, 0) if compressed else stored - declared
        while compressed and beyond < last_axis and (chunk := stream.read(_CHUNK)):  # gzip compares its checksum here
            beyond += len(chunk)
        if beyond >= last_axis:
            raise ValueError(f"{what}; {beyond} or more bytes follow, so the shape is wrong")
    if compressed:
        return kind.from_bytes(b"".join(chunks))
    if has_ending(file, ".gz"):  # behind which nibabel would look for gzip
        return kind.from_bytes(file.read_bytes())
    holder = nibabel.FileHolder(filename=str(file))
    return kind.from_file_map({"header": holder, "image": holder})


def itk_reader(file: Path) -> SimpleITK.ImageFileReader:
    """A reader that has read the header of a MetaImage, NRRD or other file, see `read_volume`.

    Raises:
        DataError: DICOM in colour.
        RuntimeError: ITK cannot read the file.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(path_for_simpleitk(file))
    if image_io := _ITK_READERS.get(file.suffix.lower()):  # left to itself, ITK does not know .MHA
        reader.SetImageIO(image_io)
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() > 1 and is_dicom(file):
        raise colour_dicom(file)
    return reader


def colour_dicom(file: str | os.PathLike[str]) -> DataError:
    """The error of a DICOM file whose pixels are colours."""
    return DataError(
        f"{file} is DICOM in colour: a screen capture, ultrasound or fused image, not measured values of one channel. "
        "Expected grey values (SamplesPerPixel 1): take the original series, and move this file elsewhere."
    )


def _read_itk(file: Path) -> Volume:
    reader = itk_reader(file)
    # every component has one byte or more
    least = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
    stored = file.stat().st_size
    if file.suffix.lower() not in (".mhd", ".nhdr") and least > stored * DEFLATE_AT_MOST:
        raise EOFError(f"its header declares the shape {reader.GetSize()}; the file has {stored} bytes")
    image = reader.Execute()
    values = SimpleITK.GetArrayFromImage(image)
    axes = tuple(reversed(range(image.GetDimension())))
    components = (image.GetDimension(),) if image.GetNumberOfComponentsPerPixel() > 1 else ()
    return Volume(values.transpose(*axes, *components), affine_of_simpleitk(image))


def affine_of_simpleitk(image: SimpleITK.Image) -> np.ndarray:
    """Affine in the RAS frame; ITK's own frame is LPS, so the first two world axes change sign."""
    dimensions = min(image.GetDimension(), 3)
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (image.GetDimension(), -1))[:dimensions, :dimensions]
    affine[:dimensions, :dimensions] = direction * np.array(image.GetSpacing()[:dimensions])
    affine[:dimensions, 3] = image.GetOrigin()[:dimensions]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _check_affine(file: Path, volume: Volume) -> None:
    sizes = np.linalg.norm(volume.affine[:3, :3], axis=0)
    sides = np.array([*volume.values.shape[:3], 1, 1][:3])
    fits = np.isfinite(volume.affine).all() and sizes.min() >= LEAST_SPACING_MM
    if fits and (sizes * sides).max() <= LARGEST_EXTENT_MM and abs(np.linalg.det(volume.affine[:3, :3] / sizes)) > 0.01:
        return
    raise DataError(
        f"{file}: its affine {np.round(volume.affine[:3], 6).tolist()} gives voxels of {sizes.tolist()} mm and a shape "
        f"of {sides.tolist()}; expected three finite axes that span space, voxels of at least {LEAST_SPACING_MM:g} mm, "
        f"a volume of at most {LARGEST_EXTENT_MM:g} mm. Correct its header (voxel size, qform, sform, or space "
        "directions), or export it again."
    )
