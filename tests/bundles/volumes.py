# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Volumes as they come from scanners and programs: any grid, any way of writing it down."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
from hypothesis import strategies as st

AXIS_CODES = ["".join(letters) for axes in permutations(("LR", "PA", "IS")) for letters in product(*axes)]
INTEGERS = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64")
sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK finds some of these headers odd, as they are
FORMS = ("sform", "qform", "both", "disagreeing", "standard_space", "stale_size", "neither")
SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie.

    Attributes:
        shape: (H, W, D).
        affine: (4, 4), RAS, mm, without shear.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray


@dataclass(frozen=True)
class Storage:
    """How a volume is written down.

    Attributes:
        suffix: of the file.
        dtype: of the stored numbers.
        big_endian: byte order (NIfTI).
        nifti2: version (NIfTI).
        slope: of the scaling (NIfTI): a voxel is slope * stored + intercept.
        intercept: see `slope`.
        forms: which affines the header has (NIfTI), see `write`.
        codes: of sform and qform (NIfTI).
    """

    suffix: str = ".nii.gz"
    dtype: str = "int16"
    big_endian: bool = False
    nifti2: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    forms: str = "both"
    codes: tuple[int, int] = (1, 1)


def directions(axis_codes: str, angles: tuple[float, float, float]) -> np.ndarray:
    """Unit vectors along the voxels' axes: along `axis_codes`, then turned by Euler angles in radians."""
    matrix = np.zeros((3, 3))
    for column, letter in enumerate(axis_codes):
        matrix["RLAPSI".index(letter) // 2, column] = 1 if letter in "RAS" else -1
    for (first, second), angle in zip(((0, 1), (1, 2), (0, 2)), angles, strict=True):
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def make_grid(shape, axis_codes="RAS", spacing=(1.0, 1.0, 1.0), angles=(0.0, 0.0, 0.0), origin=(0.0, 0.0, 0.0)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = directions(axis_codes, angles) * np.array(spacing)
    affine[:3, 3] = origin
    return Grid(tuple(shape), affine)


def grids(max_side: int = 24, spacings: st.SearchStrategy | None = None) -> st.SearchStrategy[Grid]:
    """Grids of any shape down to one voxel, any spacing, any of the 48 axis codes, half of them oblique."""
    side = st.one_of(*[st.integers(2, max_side)] * 4, st.just(1))
    angle = st.floats(-np.pi, np.pi)
    return st.builds(
        make_grid,
        shape=st.tuples(side, side, side),
        axis_codes=st.sampled_from(AXIS_CODES),
        spacing=st.tuples(*[st.floats(0.2, 6.0)] * 3) if spacings is None else spacings,
        angles=st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(angle, angle, angle)),
        origin=st.tuples(*[st.floats(-900, 900)] * 3),
    )


def storages(dtypes: tuple[str, ...] = (*INTEGERS, "float32", "float64")) -> st.SearchStrategy[Storage]:
    """Ways to write a volume whose voxels are even numbers from 0 to 40."""
    scalings = ((1.0, 0.0), (1.0, 0.0), (2.0, 0.0), (0.5, 0.0), (1.0, -20.0), (0.5, -10.0))
    return st.builds(
        lambda scaling, **settings: Storage(slope=scaling[0], intercept=scaling[1], **settings),
        scaling=st.sampled_from(scalings),
        suffix=st.sampled_from(SUFFIXES),
        dtype=st.sampled_from(dtypes),
        big_endian=st.booleans(),
        nifti2=st.booleans(),
        forms=st.sampled_from(FORMS),
        codes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    )


def write(path: Path, values: np.ndarray, grid: Grid, storage: Storage) -> Path:
    """Write (H, W, D[, C]) whole numbers; what readers are to make of the file is in the file alone.

    Forms: ``sform``, ``qform`` (only that one), ``both``, ``disagreeing`` (the qform is elsewhere), ``standard_space``
    (the sform leads to an atlas, so it has another voxel size than the header says), ``stale_size`` (only a sform, and
    a voxel size that somebody forgot to write), ``neither``.
    """
    path = path.with_name(path.name + storage.suffix)
    if storage.suffix in (".mha", ".nrrd"):
        image = sitk.GetImageFromArray(values.T.astype(storage.dtype), isVector=False)
        lps = np.diag([-1, -1, 1, 1]) @ grid.affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        sitk.WriteImage(image, str(path))
        return path
    kind = nibabel.Nifti2Image if storage.nifti2 else nibabel.Nifti1Image
    header = kind.header_class(endianness=">" if storage.big_endian else "<")
    header.set_data_dtype(storage.dtype)
    stored = np.round((values - storage.intercept) / storage.slope).astype(storage.dtype)
    image = kind(stored, None, header)
    header = image.header
    header.set_slope_inter(storage.slope, storage.intercept)
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    sform_code, qform_code = storage.codes
    elsewhere = np.diag([-1, 1, -1, 1]) @ grid.affine
    elsewhere[:3, 3] += 7
    atlas = np.diag([1.25, 1.25, 1.25, 1]) @ grid.affine
    forms = {
        "sform": (grid.affine, None),
        "qform": (None, grid.affine),
        "both": (grid.affine, grid.affine),
        "disagreeing": (grid.affine, elsewhere),
        "standard_space": (atlas, grid.affine),
        "stale_size": (grid.affine, None),
        "neither": (None, None),
    }
    sform, qform = forms[storage.forms]
    sizes = (1, 1, 1) if storage.forms == "stale_size" else spacing
    header.set_zooms((*sizes, *[1] * (values.ndim - 3)))
    if qform is not None:
        header.set_qform(qform, code=qform_code)
    if sform is not None:
        header.set_sform(sform, code=sform_code)
    nibabel.save(image, path)
    np.testing.assert_allclose(nibabel.load(path).get_fdata(), values)  # the test itself is right
    return path


def read_sitk(path: Path) -> sitk.Image | None:
    """What programs made with ITK see; None if they refuse the file, as they do where axes are not at right angles."""
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError:
        return None


def assert_same_grid(found: Path, expected: Path) -> None:
    """Compare shape and place of the voxels as nibabel and as SimpleITK (with all made with ITK) read them."""
    if expected.name.endswith((".nii", ".nii.gz")):
        one, other = nibabel.load(found), nibabel.load(expected)
        assert one.shape[:3] == other.shape[:3]
        np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)
    one, other = read_sitk(found), read_sitk(expected)
    if other is None:
        return
    assert one is not None
    assert one.GetSize()[:3] == other.GetSize()[:3]
    dimensions = other.GetDimension()
    corners = [
        tuple((size - 1) * (corner >> axis & 1) for axis, size in enumerate(other.GetSize())) for corner in range(2**3)
    ]
    if dimensions != one.GetDimension():
        other = other[..., 0]
        corners = [corner[:3] for corner in corners]
    for corner in corners:
        np.testing.assert_allclose(
            one.TransformIndexToPhysicalPoint(corner), other.TransformIndexToPhysicalPoint(corner), atol=2e-3
        )
