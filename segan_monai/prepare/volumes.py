# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading, checking, correcting, resampling and writing the volumes of a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing

from segan_monai.errors import DataError
from segan_monai.files import whole_file
from segan_monai.grids import Grid, check_same_grid
from segan_monai.prepare.ct_labels import place_label
from segan_monai.prepare.dicom import numbering_note, read_pixels, read_slices
from segan_monai.prepare.options import PrepareOptions
from segan_monai.transforms.load_case import FOR_LABELS, volume_shape
from segan_monai.transforms.tissue_labels import unknown_tissue_values
from segan_monai.volume_files import Volume, read_volume

_INTEGERS = (np.uint8, np.int16, np.uint16, np.int32)
_LARGEST_LABEL = 255
LARGEST_VALUE = float(np.finfo(np.float32).max)
"""Largest value of float32, the input type of the networks; larger values become infinite."""


def prepare_volumes(case: Mapping[str, Any], folder: Path, options: PrepareOptions) -> dict[str, Any]:
    """Write the image and the label map of a case.

    Args:
        case: Case from ``segan_monai.prepare.sources``, with its ``section``.
        folder: Parent folder of ``imagesTr/<case>.nii.gz`` and ``labelsTr/<case>.nii.gz`` (``Ts`` for the section
            ``test``).
        options: Preparation settings.

    Returns:
        ``image`` (a path relative to ``folder``, or a list of paths), ``label`` and ``notes``.

    Raises:
        DataError: A file cannot be read; the images, or image and label map, are on different grids; voxels are NaN,
            infinite or too large for float32; label values are not integers from 0 to 255.
        OutputError: A file cannot be written.
    """
    notes: list[str] = []
    name, image = _read_image(case, notes)
    label = None
    if "label" in case:
        label_file = Path(case["label"])
        label = _label(label_file, read_volume(label_file))
        if "series" in case:
            series = image._replace(values=image.values[..., 0])
            placed = place_label(label_file, label, name, series, options.label_flip)
            label = Volume(placed.values, image.affine)
            notes.append(f"label map flipped along {placed.flip} ({placed.how})")
        check_same_grid(_grid(name, image), _grid(str(label_file), label), FOR_LABELS)
        if case.get("tissue_values"):
            label = _relabelled(case, label)
        if options.strip_skull and case.get("skull_strip"):
            image = image._replace(values=image.values * (label.values != 0)[..., None])
            notes.append("0 outside the label map")
    if options.n4:
        channels = [correct_bias(channel, image.affine, options.n4_shrink_factor) for channel in _channels(image)]
        image = image._replace(values=np.stack(channels, axis=-1))
        notes.append("bias field corrected by N4")
    if options.spacing_mm:
        image = resample(image, options.spacing_mm, "bilinear")
        label = label and resample(label, options.spacing_mm, "nearest")
    return {**_write(case, folder, options, image, label), "notes": notes}


def _read_image(case: Mapping[str, Any], notes: list[str]) -> tuple[str, Volume]:
    """Return a name for messages and the image (H, W, D, C); add remarks for the user to ``notes``."""
    files = [case["image"]] if isinstance(case["image"], str) else list(case["image"])
    if "series" in case:
        slices = read_slices(files)
        volume = read_pixels(slices)
        notes += filter(None, [numbering_note(slices)])
        return case["series"], volume._replace(values=volume.values[..., None])
    volumes = []
    for file in files:
        values, affine = read_volume(Path(file))
        shape = volume_shape(file, values.shape, min(values.ndim, 3))
        volumes.append(Volume(values.reshape(shape if len(shape) == 4 else (*shape, 1)), affine))
        _check_finite(file, values)
        if len(files) > 1:
            check_same_grid(_grid(files[0], volumes[0]), _grid(file, volumes[-1]))
    values = np.concatenate([volume.values for volume in volumes], axis=-1)
    if case.get("channels") is not None:
        values = values[..., case["channels"]]
    return files[0], Volume(values, volumes[0].affine)


def _check_finite(file: str, values: np.ndarray) -> None:
    if values.dtype.kind == "f":
        # this form also counts NaN
        bad = values.size - int(np.count_nonzero(np.abs(values) <= LARGEST_VALUE))
        if bad:
            raise DataError(
                f"{file}: {bad} of {values.size} voxels are NaN or infinite in float32, whose largest value is "
                f"{LARGEST_VALUE:.3g}. Download it again; if the original has them too, replace them, for example with "
                "numpy.nan_to_num and numpy.clip."
            )


def _label(file: Path, label: Volume) -> Volume:
    """Check a label map and convert it to (H, W, D), uint8."""
    shape = volume_shape(file, label.values.shape, min(label.values.ndim, 3))
    fractions = label.values.dtype.kind == "f"
    rounded = np.rint(label.values) if fractions else label.values
    fits = rounded.min() >= 0 and rounded.max() <= _LARGEST_LABEL
    # the slope of a header can leave rounding errors
    fits = fits and (not fractions or np.abs(rounded - label.values).max() < 0.01)
    if not fits or shape[3:] not in ((), (1,)):
        raise DataError(
            f"{file} is not a label map: shape {shape}, values from {label.values.min():g} to {label.values.max():g}. "
            f"Expected one channel of integers from 0 to {_LARGEST_LABEL}; is it an image?"
        )
    return Volume(rounded.reshape(shape[:3]).astype(np.uint8), label.affine)


def _relabelled(case: Mapping[Any, Any], label: Volume) -> Volume:
    """Map the label values of the data set to tissues, see ``segan_monai.transforms.RelabelCased``."""
    counts = np.bincount(label.values.ravel(), minlength=_LARGEST_LABEL + 1)
    found: dict[float, int] = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    if message := unknown_tissue_values(case, case["label"], found):
        raise DataError(message)
    table = np.zeros(_LARGEST_LABEL + 1, np.uint8)
    for value, becomes in case["tissue_values"].items():
        table[int(value)] = becomes
    return label._replace(values=table[label.values])


def _grid(name: str, volume: Volume) -> Grid:
    return Grid(name, volume.values.shape[:3], volume.affine)


def _channels(image: Volume) -> list[np.ndarray]:
    return [image.values[..., index] for index in range(image.values.shape[-1])]


def correct_bias(values: np.ndarray, affine: np.ndarray, shrink_factor: int = 4) -> np.ndarray:
    """Divide an MR image by its bias field, estimated by SimpleITK's N4 filter (Tustison et al. (2010)).

    The field is estimated where the image is above 0, and for whole heads also above Otsu's threshold. An image counts
    as a whole head if less than a fifth of it is 0 [ours]. Each axis is shrunk by at most ``shrink_factor``, and keeps
    at least 16 voxels.

    Args:
        values: Image (H, W, D).
        affine: (4, 4); only the voxel sizes are used.
        shrink_factor: 1 or more.

    Returns:
        The corrected image (H, W, D) in float32.
    """
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T, dtype=np.float32))
    image.SetSpacing(nibabel.affines.voxel_sizes(affine).tolist())
    mask = image > 0
    if not (values > 0).any():
        return values.astype(np.float32)
    if np.mean(values == 0) < 0.2:
        mask = mask & sitk.OtsuThreshold(image, 0, 1)
    factors = [max(1, min(shrink_factor, length // 16)) for length in image.GetSize()]
    correction = sitk.N4BiasFieldCorrectionImageFilter()
    correction.Execute(sitk.Shrink(image, factors), sitk.Shrink(mask, factors))
    field = sitk.GetArrayFromImage(correction.GetLogBiasFieldAsImage(image)).T
    return values.astype(np.float32) / np.exp(field).astype(np.float32)


def resample(volume: Volume, spacing_mm: Sequence[float], mode: str) -> Volume:
    """Resample a volume to another voxel size; its edges stay in place.

    Args:
        volume: (H, W, D) or (H, W, D, C).
        spacing_mm: Voxel size in mm: right, forward, up, independent of the order of the stored axes.
        mode: ``bilinear`` or ``nearest``.

    Returns:
        The volume in float32, or for ``nearest`` in the type of the input.
    """
    order = nibabel.io_orientation(volume.affine)[:, 0].astype(int)
    values = volume.values if volume.values.ndim == 4 else volume.values[..., None]
    tensor = MetaTensor(
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0), np.float32)), torch.from_numpy(volume.affine)
    )
    spacing = Spacing([spacing_mm[axis] for axis in order], mode=mode, padding_mode="border", scale_extent=True)
    resampled = spacing(tensor)
    array = np.moveaxis(resampled.as_tensor().numpy(), 0, -1).reshape(*resampled.shape[1:], *volume.values.shape[3:])
    affine = resampled.affine.numpy().astype(np.float64)
    return Volume(array.astype(volume.values.dtype) if mode == "nearest" else array, affine)


def in_smallest_type(values: np.ndarray) -> np.ndarray:
    """Convert values to the first type that represents all of them exactly: uint8, int16, uint16, int32.

    Other values become float32, the input type of the networks; 64-bit fractions are rounded.

    Args:
        values: Finite numbers.
    """
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        return values.astype(np.float32)
    lower, upper = values.min(), values.max()
    for integer in _INTEGERS:
        if np.iinfo(integer).min <= lower and upper <= np.iinfo(integer).max:
            return values.astype(integer)
    return values.astype(np.float32)


def _write(
    case: Mapping[str, Any], folder: Path, options: PrepareOptions, image: Volume, label: Volume | None
) -> dict[str, Any]:
    section = "Ts" if case["section"] == "test" else "Tr"
    name = case["case"]
    count = image.values.shape[-1]
    if count == 1 or options.four_d:
        entry: dict[str, Any] = {"image": f"images{section}/{name}.nii.gz"}
        values = in_smallest_type(image.values)
        write_nifti(folder / entry["image"], values[..., 0] if count == 1 else values, image.affine)
    else:
        entry = {"image": [f"images{section}/{name}_{index:04d}.nii.gz" for index in range(count)]}
        for file, channel in zip(entry["image"], _channels(image), strict=True):
            write_nifti(folder / file, in_smallest_type(channel), image.affine)
    if label is not None:
        entry["label"] = f"labels{section}/{name}.nii.gz"
        write_nifti(folder / entry["label"], label.values, label.affine)
    return entry


def write_nifti(file: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume with gzip level 1; files are 2 to 6 % larger than with level 9 and equally fast to read.

    Raises:
        OutputError: The file cannot be written; no partial file remains.
    """
    nifti = nibabel.Nifti1Image(values, affine)
    nifti.header.set_xyzt_units("mm")
    nifti.set_sform(affine, 1)
    nifti.set_qform(affine, 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as temporary:
        nibabel.save(nifti, temporary)  # gzip level 1
