# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Loading and validation of the volumes of a case."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor

from segan_monai.errors import DataError
from segan_monai.file_kinds import is_picture
from segan_monai.finite import is_finite
from segan_monai.grids import Grid, check_same_grid
from segan_monai.transforms.case_loader import CaseLoader, Header
from segan_monai.volume_files import read_volume

FOR_LABELS = "with nearest-neighbour interpolation for the label map"
# required by spatial transforms and SaveImage; other header fields differ by format and cannot be collated
_META_KEYS = ("affine", "original_affine", "spatial_shape", "space")


class LoadCased(CaseLoader):
    """Load a case: stack its modalities, add its label map, and validate both.

    Each file is read once, see ``segan_monai.volume_files.read_volume``. Arrays and tensors (C, H, W[, D]) are not read
    but validated too.

    The image's ``meta["filename_or_obj"]`` is set to the name of the case, so that ``SaveImage(separate_folder=False,
    output_postfix="seg")`` writes ``<case>_seg.nii.gz``. Without ``case`` in the dictionary it is the name of the first
    file. ``meta["source_files"]`` contains all files, joined by newlines.

    Args:
        keys: the image first, then label maps on the image's grid.
        num_channels: expected number of channels; by default that of ``modalities``, or any number without these.
        modalities: names of the channels, for messages.
        allow_missing_keys: whether to skip missing keys.
        background_labels: label values that become 0; None for none.

    Returns:
        The dictionary with float32 MetaTensors: image (C, H, W, D), and label map (1, H, W, D) of integers.

    Raises:
        DataError: on call, if

            - a file is missing, damaged, 2-D or has an invalid affine;
            - modalities, or image and label map, have different grids, see ``segan_monai.grids``;
            - voxels are NaN or infinite, or label values are not integers;
            - the number of channels differs from ``num_channels``.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        num_channels: int | None = None,
        modalities: Sequence[str] | None = None,
        allow_missing_keys: bool = False,
        background_labels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.background_labels = tuple(background_labels or ())
        self.modalities = tuple(modalities or ())
        self.num_channels = num_channels or len(self.modalities) or None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load and check the keys; everything else in ``data`` is kept."""
        case = dict(data)
        image_key = self.keys[0]
        image = None
        for key in self.keys:
            if case.get(key) is None:
                if self.allow_missing_keys:
                    continue
                name = case.get("case", "without name")
                raise DataError(
                    f"case {name} has no '{key}', only {', '.join(map(str, case))}. Add it to the datalist."
                )
            loaded = self._load(case[key], case.get("channels") if key == image_key else None)
            if key == image_key:
                self._check_channels(loaded)
                if "case" in case:
                    file = Path(loaded.meta["filename_or_obj"])
                    loaded.meta["filename_or_obj"] = str(file.parent / f"{case['case']}.nii.gz")
                image = loaded
            else:
                loaded = _whole_numbers(loaded)
                if image is not None:
                    check_same_grid(_grid(image), _grid(loaded), FOR_LABELS)
                loaded = self._without_background(loaded)
            case[key] = loaded
        return case

    def check_image_headers(self, case: Mapping[Hashable, Any], images: Sequence[Header]) -> None:
        """See ``CaseLoader``."""
        images = [self._seen(header) for header in images]
        names = [header.grid.name for header in images]
        channels = count_channels(names, [header.channels for header in images], case.get("channels"))
        self.check_channels(", ".join(names), (channels, *images[0].grid.shape))

    def check_grids(self, images: Sequence[Header], labels: Sequence[Header]) -> None:
        """See ``CaseLoader``."""
        first, *others = (self._seen(header).grid for header in images)
        for grid in others:
            check_same_grid(first, grid)
        for header in labels:
            check_same_grid(first, self._seen(header).grid, FOR_LABELS)

    def _seen(self, header: Header) -> Header:
        """Return the header of a file as ``_read`` reads it."""
        if header.is_picture:
            volume_shape(header.grid.name, header.grid.shape[:2], 2)  # raises an error
        return header

    def _load(self, value: Any, channels: Sequence[int] | None) -> MetaTensor:
        if isinstance(value, torch.Tensor | np.ndarray):
            meta = dict(value.meta) if isinstance(value, MetaTensor) else {}
            given = MetaTensor(torch.as_tensor(value).as_subclass(torch.Tensor).to(torch.float32), meta=meta)
            given.meta.setdefault("filename_or_obj", "")
            given.meta.setdefault("source_files", given.meta["filename_or_obj"])
            _check_finite(given)
            return given
        files = [value] if isinstance(value, str | os.PathLike) else list(value)
        volumes = [self._read(Path(file)) for file in files]
        first = volumes[0]
        pixels = first.as_tensor()
        for volume in volumes[1:]:
            check_same_grid(_grid(first), _grid(volume))
        count_channels([_name(volume) for volume in volumes], [volume.shape[0] for volume in volumes], channels)
        if channels is not None:
            pixels = pixels[list(channels)]
        elif len(volumes) > 1:
            pixels = torch.cat([volume.as_tensor() for volume in volumes])
        meta = {key: first.meta[key] for key in _META_KEYS if key in first.meta}
        meta |= {
            "original_channel_dim": 0,
            "filename_or_obj": first.meta["filename_or_obj"],
            "source_files": "\n".join(map(str, files)),
        }
        return MetaTensor(pixels.contiguous(), meta=meta)

    def _read(self, file: Path) -> MetaTensor:
        """Read one file as (C, H, W, D)."""
        values, affine = read_volume(file)
        if is_picture(file):  # one in colour looks like a volume of three slices
            volume_shape(file, values.shape[:2], 2)  # raises an error
        shape = volume_shape(file, values.shape, min(values.ndim, 3))
        with np.errstate(over="ignore"):  # infinite values raise an error below
            pixels = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).reshape(shape)
        meta = {
            "affine": torch.from_numpy(affine),
            "original_affine": torch.from_numpy(affine.copy()),
            "spatial_shape": np.array(shape[:3]),
            "space": "RAS",
            "filename_or_obj": str(file),
        }
        volume = MetaTensor(pixels[None] if pixels.ndim == 3 else pixels.movedim(-1, 0), meta=meta)
        _check_finite(volume)
        return volume

    def _without_background(self, label: MetaTensor) -> MetaTensor:
        """Return the label map with 0 in place of the values that count as background."""
        if not self.background_labels:
            return label
        values = label.as_tensor()
        background = torch.isin(values, values.new_tensor(self.background_labels))
        return MetaTensor(values.masked_fill(background, 0), meta=label.meta)

    def _check_channels(self, image: MetaTensor) -> None:
        self.check_channels(_name(image), tuple(image.shape))

    def check_channels(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise DataError if the image ``name`` of ``shape`` (C, H, W, D) has an unexpected number of channels."""
        if self.num_channels not in (None, shape[0]):
            names = f" ({', '.join(self.modalities)})" if self.modalities else ""
            raise DataError(
                f"{name}: expected {self.num_channels} channels{names}, found {shape[0]} in an image of "
                f"shape {shape} (channels first). Give one file a modality in this order, or one 4-D "
                "image (H, W, D, channels)."
            )


def _name(volume: MetaTensor) -> str:
    """Return the name of a volume for messages: its files, or a description if it has none."""
    files = volume.meta.get("source_files", volume.meta["filename_or_obj"])
    return str(files).replace("\n", ", ") if files else "the given array"


def _check_finite(volume: MetaTensor) -> None:
    values = volume.as_tensor()
    if is_finite(values):
        return
    bad = ~torch.isfinite(values)
    first = tuple(bad.nonzero()[0].tolist())[values.shape[0] == 1 :]
    raise DataError(
        f"{_name(volume)}: {int(bad.sum())} of {values.numel()} voxels are NaN or infinite, the first at index "
        f"{first}; in float32, which networks take, numbers beyond 3.4e38 are infinite too. Replace them, for "
        "example with numpy.nan_to_num and numpy.clip, or export the image again."
    )


def _whole_numbers(label: MetaTensor) -> MetaTensor:
    if label.shape[0] != 1:
        raise DataError(
            f"{_name(label)}: a label map of shape {tuple(label.shape)} (channels first). Expected one channel with a "
            "whole number for each class; merge the channels first."
        )
    values = label.as_tensor()
    rounded = values.round()
    if torch.equal(rounded, values):
        return label
    wrong = (
        rounded - values
    ).abs() > 0.01  # smaller deviations are rounding: nibabel rescales floats it saves as uint8
    if wrong.any():
        raise DataError(
            f"{_name(label)}: {int(wrong.sum())} voxels of the label map are not whole numbers, such as "
            f"{float(values[wrong][0]):g}. Resample label maps with nearest-neighbour interpolation, and "
            "threshold probabilities."
        )
    return MetaTensor(rounded, meta=label.meta)


def _grid(volume: MetaTensor) -> Grid:
    return Grid(_name(volume), tuple(volume.shape[1:]), np.asarray(volume.affine.cpu()))


def volume_shape(file: str | os.PathLike[str], shape: Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    """Return the shape of a file as (H, W, D) or (H, W, D, C).

    Args:
        file: name of the file, for messages.
        shape: shape from a header or reader; NIfTI vectors are (H, W, D, 1, C).
        spatial_dims: number of spatial axes.

    Raises:
        DataError: if the image is 2-D or has too many axes.
    """
    shape = tuple(int(length) for length in shape)
    if spatial_dims < 3:
        raise DataError(
            f"{file} is a 2-D image of shape {shape}. Expected a 3-D volume; stack the slices into one file first."
        )
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    if len(shape) > 4:
        raise DataError(f"{file} has shape {shape}. Expected (H, W, D) or (H, W, D, channels).")
    return shape


def count_channels(names: Sequence[str], found: Sequence[int], selected: Sequence[int] | None) -> int:
    """Return the total number of channels of an image's files.

    Args:
        names: names of the files, for messages.
        found: number of channels of each file.
        selected: indices of the selected channels of a single 4-D image; None for all.

    Raises:
        DataError: if one of several files has more than one channel, or a selected channel does not exist.
    """
    for name, count in zip(names, found, strict=True):
        if len(names) > 1 and count != 1:
            raise DataError(
                f"{name} is one of {len(names)} images of a case and has {count} channels. "
                "Expected 3-D images, one a modality, or a single 4-D image with all of them."
            )
    if selected is not None and max(selected) >= found[0]:
        raise DataError(
            f"{names[0]} has {found[0]} channels, but the datalist selects {list(selected)} (counted "
            "from 0). Correct 'channels' or 'modality' there."
        )
    return sum(found) if selected is None else len(selected)
