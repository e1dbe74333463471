# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""NIfTI headers read as in ITK and FSL, and results aligned with their source in every program.

``export/run_onnx.py``, which must run without this package, contains a copy of these functions; a test compares them.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

# Header fields that define the position in space. A NIfTI has two affines, and programs differ in their choice: nibabel
# prefers the sform, ITK (3D Slicer, ITK-SNAP) often the qform.
PLACE = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


class LaxQuaternion:
    """Header mixin that reads the quaternion like the NIfTI C library, which ITK and FSL use.

    In single precision, the length of (b, c, d) may be rounded to just above 1, which nibabel rejects. Near a half
    turn, nibabel also rounds the angle by up to 0.001 radians.
    """

    def get_qform_quaternion(self: Any) -> np.ndarray:
        """Return the unit quaternion (a, b, c, d)."""
        b, c, d = (float(self[f"quatern_{part}"]) for part in "bcd")
        a = 1.0 - (b * b + c * c + d * d)
        if a < 1e-7:
            length = math.sqrt(b * b + c * c + d * d)
            return np.array([0.0, b / length, c / length, d / length])
        return np.array([math.sqrt(a), b, c, d])


class Nifti1Header(LaxQuaternion, nibabel.Nifti1Header):
    """NIfTI-1 in one file."""


class Nifti2Header(LaxQuaternion, nibabel.Nifti2Header):
    """NIfTI-2 in one file."""


class Nifti1PairHeader(LaxQuaternion, nibabel.nifti1.Nifti1PairHeader):
    """NIfTI-1 in two files."""


class Nifti1Pair(nibabel.Nifti1Pair):
    """NIfTI-1 in two files, ``.hdr`` and ``.img``."""

    header_class = Nifti1PairHeader


class Nifti1Image(nibabel.Nifti1Image):
    """NIfTI-1 in one file."""

    header_class = Nifti1Header


class Nifti2Image(nibabel.Nifti2Image):
    """NIfTI-2 in one file."""

    header_class = Nifti2Header


def kind_of_nifti(start: bytes) -> type[nibabel.Nifti1Image]:
    """Return the image class for NIfTI-1 or NIfTI-2 from the first four bytes, the header size."""
    is_nifti2 = 540 in (int.from_bytes(start[:4], order) for order in ("little", "big"))
    return Nifti2Image if is_nifti2 else Nifti1Image


def open_by_content(file: Path) -> Any:
    """Open a file, with gzip if its content is compressed, regardless of its name."""
    with file.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(file) if compressed else file.open("rb")


def open_nifti(file: Path) -> Any:
    """Open a NIfTI or Analyze image, reading only its header; gzip is recognised by content, not by name."""
    if file.suffix.lower() in (".hdr", ".img"):
        return nibabel.load(file) if raw_header(file) is None else Nifti1Pair.from_filename(file)
    stream = open_by_content(file)
    kind = kind_of_nifti(stream.read(4))
    stream.seek(0)
    holder = nibabel.FileHolder(fileobj=stream)
    return kind.from_file_map({"header": holder, "image": holder})


def affine_in_mm(image: Any) -> np.ndarray:
    """Return the affine (4, 4) of an image in mm, in the RAS frame.

    The sform is taken, as nibabel does. The qform is taken where there is one and the sform leads to an atlas (codes
    from 3 on) with voxels of another size than the header gives: an atlas has no patient's millimetres. Metres and
    microns are converted, as ITK does and nibabel does not.
    """
    affine = np.array(image.affine, dtype=float)
    if not isinstance(image, nibabel.Nifti1Pair):
        return affine
    header = image.header
    if header["sform_code"] >= 3 and header["qform_code"] > 0:
        spacing = header.get_zooms()[:3]
        if not np.allclose(nibabel.affines.voxel_sizes(affine)[: len(spacing)], spacing):
            affine = np.array(image.get_qform(), dtype=float)
    affine[:3] *= {1: 1000.0, 3: 0.001}.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def raw_header(file: Path) -> nibabel.Nifti1Header | None:
    """Return the header of a NIfTI exactly as stored, without nibabel's sign corrections; None for other files."""
    if file.suffix.lower() == ".img":
        file = file.with_suffix(".hdr" if file.suffix == ".img" else ".HDR")
    with open_by_content(file) as stream:
        start = stream.read(540)
    header_class = kind_of_nifti(start).header_class
    block = start[: header_class.sizeof_hdr]
    if len(block) < header_class.sizeof_hdr:
        return None
    header = header_class(block, check=False)
    return header if bytes(header["magic"])[:3] in (b"n+1", b"ni1", b"n+2", b"ni2") else None


def shorten_quaternion(header: nibabel.Nifti1Header) -> None:
    """Scale a quaternion that is too long for nibabel to length 1, as ITK and FSL do when they read it.

    The target length is 1 + 5e-8, so that rounding to single precision cannot make it shorter than 1: ITK would then
    add a rotation of up to 0.0006 radians.
    """
    names = [f"quatern_{part}" for part in "bcd"]
    quaternion = np.array([header[name] for name in names], dtype=float)
    if quaternion @ quaternion - 1 >= abs(header.quaternion_threshold):
        for name, value in zip(names, quaternion / np.linalg.norm(quaternion) * (1 + 5e-8), strict=True):
            header[name] = value


def place_like(source: Path | None, image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """Return an image with the position in space of a NIfTI of the same shape, for nibabel, ITK and other programs.

    All header fields that define the position are copied as stored, so every program interprets both files alike.
    The exception is a quaternion that nibabel rejects, see ``shorten_quaternion``. Without a NIfTI source of that
    shape, sform and qform are both set to the image's affine.

    Args:
        source: source file; None or a file of another format if there is no NIfTI source.
        image: image to position.
    """
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    header = raw_header(source) if source is not None else None
    if header is None or header.get_data_shape()[:3] != image.shape[:3]:
        return image
    placed = nibabel.Nifti1Image(np.asanyarray(image.dataobj), None, image.header)
    for field in PLACE:  # last, because nibabel corrects signs in given headers
        placed.header[field] = header[field]
    placed.header["pixdim"][:4] = header["pixdim"][:4]
    shorten_quaternion(placed.header)
    return placed
