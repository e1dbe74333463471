# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Loading and validation of photographs and their masks, resized to the network's input size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform
from monai.utils import convert_to_tensor
from PIL import Image, ImageOps

from segan_monai.errors import DataError, missing_file, unreadable
from segan_monai.label_values import label_values
from segan_monai.transforms.case_loader import CaseLoader, Header

# Photographs have no physical grid. This is what ITK gives an image without one (LPS, 1 unit a pixel), written in RAS,
# so that a NIfTI of a mask lies on its photograph in viewers that open both.
PIXEL_AFFINE = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # orientations of EXIF that exchange rows and columns
_COLOUR = ("RGB", "RGBA", "P")
_DECODE_AT_LEAST = 2  # times the wanted size, as `PIL.Image.thumbnail` does: no aliasing is seen


def read_photograph(file: Path, size: Sequence[int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a photograph in display orientation (EXIF rotation applied), resized while decoding.

    JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that is at least twice the requested size, which is several times
    faster. It is then resized bilinearly with antialiasing. An alpha channel is dropped.

    Args:
        file: JPEG, PNG or BMP file.
        size: requested columns and rows.

    Returns:
        Pixels (columns, rows, 3) in uint8, with the axis order of MONAI's readers, and the photograph's original
        columns and rows.

    Raises:
        DataError: if the file is missing, damaged, or not in colour.
    """
    with _opened(file) as picture:
        if picture.mode not in _COLOUR:
            raise DataError(
                f"{file} has mode {picture.mode}. Expected a colour photograph of 8 bits a channel (RGB, or RGBA whose "
                "alpha is dropped): the network looks at colour. If it is a mask, move it to the folder of masks; a "
                "grey photograph, or one in printing colours (CMYK), can be converted with PIL's convert('RGB')."
            )
        try:
            turned = picture.getexif().get(_EXIF_ORIENTATION) in _TURNED
            columns, rows = picture.size[::-1] if turned else picture.size
            stored = tuple(size)[::-1] if turned else tuple(size)
            drafted = picture.draft(None, tuple(_DECODE_AT_LEAST * length for length in stored))
            colour = picture.convert("RGB")
            # the exact part of the decoded pixels that the photograph covers, where its sides are no multiples of 8
            small = colour.resize(stored, Image.Resampling.BILINEAR, box=drafted[1] if drafted else None)
            displayed = ImageOps.exif_transpose(small)
        except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error, ...
            raise _damaged(file, error) from error
    return np.asarray(displayed).swapaxes(0, 1), (columns, rows)


def read_mask(file: Path) -> Image.Image:
    """Read a mask at full size in display orientation.

    Args:
        file: single-channel PNG or BMP file.

    Returns:
        Picture of mode L (8 bits) or P (values are palette indices); 1-bit masks become 0 and 255.

    Raises:
        DataError: if the file is missing or damaged, or has several channels or more than 8 bits.
    """
    with _opened(file) as picture:
        if picture.mode not in ("1", "L", "P"):
            raise DataError(
                f"{file} has mode {picture.mode}. Expected a mask of one channel of 8 bits, 0 and 255; if its channels "
                "are equal, convert it with PIL's convert('L')."
            )
        try:
            displayed = ImageOps.exif_transpose(picture)
            displayed.load()
        except Exception as error:
            raise _damaged(file, error) from error
        return displayed.convert("L") if displayed.mode == "1" else displayed


class LoadPhotographd(CaseLoader, InvertibleTransform):
    """Load a photograph, resized to the network's size while decoding, and its mask.

    Only the resized pictures stay in memory. The axis order is that of MONAI's readers: columns first. EXIF rotation is
    applied, and masks must have the size of the photograph as displayed. The inverse resizes a prediction to the
    photograph's original columns and rows: integers by nearest neighbour, probabilities bilinearly.

    Args:
        keys: the photograph first, then its masks.
        size: columns and rows of the result.
        regions: label values of each region; masks may contain only these and 0. None to allow any value.
        resize_masks: whether to resize masks (nearest neighbour); False to evaluate at the original size.
        allow_missing_keys: whether to skip missing keys.
        ignore_label: value of pixels whose label is unknown, which masks may contain too; None for none.

    Returns:
        The dictionary with MetaTensors: photograph (3, columns, rows) in float32, 0 to 1 [ours: the critic sees it
        multiplied by label maps, so it is positive and not standardized]; mask (1, columns, rows) in uint8, its own
        values. ``meta["filename_or_obj"]`` has the name of the case, for ``SaveImage``; ``meta["source_files"]`` is the
        file.

    Raises:
        DataError: on call: see ``read_photograph`` and ``read_mask``; a mask has another size than its photograph, or
            values that are in no region.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        size: Sequence[int] = (128, 128),
        regions: Mapping[str, Sequence[int]] | None = None,
        resize_masks: bool = True,
        allow_missing_keys: bool = False,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size = (int(size[0]), int(size[1]))
        self.allowed = None if regions is None else {0, *label_values(regions)}
        if self.allowed is not None and ignore_label is not None:
            self.allowed.add(ignore_label)
        self.resize_masks = resize_masks

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load and check the keys; everything else in ``data`` is kept."""
        case = dict(data)
        photograph = Path(case[self.keys[0]])
        pixels, own_size = read_photograph(photograph, self.size)
        for key in self.key_iterator(case):
            file = Path(case[key])
            if key == self.keys[0]:
                array = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32)) / 255
            else:
                mask = read_mask(file)
                check_size(file, mask.size, photograph, own_size)
                self._check_values(file, mask)
                mask = mask.resize(self.size, Image.Resampling.NEAREST) if self.resize_masks else mask
                array = torch.from_numpy(np.array(mask).T[None])
            resized = tuple(array.shape[1:]) == self.size
            meta = {
                "affine": _scaled(own_size, self.size) if resized else PIXEL_AFFINE,
                "original_affine": PIXEL_AFFINE,
                "original_channel_dim": 0,
                "spatial_shape": np.array(array.shape[1:]),
                "filename_or_obj": str(file.parent / f"{case.get('case', file.stem)}.png"),
                "source_files": str(file),
            }
            case[key] = MetaTensor(array.contiguous(), meta=meta)
            if resized:
                self.push_transform(case[key], orig_size=own_size)
        return case

    def check_image_headers(self, case: Mapping[Hashable, Any], images: Sequence[Header]) -> None:
        """Accept any header: ``read_photograph`` checks the colours."""

    def check_grids(self, images: Sequence[Header], labels: Sequence[Header]) -> None:
        """See ``CaseLoader``; only the sizes are compared, because photographs have no spacing."""
        photograph = images[0].grid
        for header in labels:
            mask = header.grid
            check_size(Path(mask.name), mask.shape[:2], Path(photograph.name), photograph.shape[:2])

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize (C, columns, rows) to the photograph's own size: whole numbers by nearest neighbour, else bilinear."""
        result = dict(data)
        for key in self.key_iterator(result):
            small = convert_to_tensor(result[key], track_meta=True)
            own_size = tuple(int(length) for length in self.pop_transform(small)["orig_size"])
            values = small.as_tensor()[None]
            full = (
                F.interpolate(values.float(), own_size, mode="bilinear", align_corners=False)
                if values.is_floating_point()
                else F.interpolate(values, own_size, mode="nearest-exact")
            )
            meta = {**small.meta, "affine": PIXEL_AFFINE, "spatial_shape": np.array(own_size)}
            result[key] = MetaTensor(full[0], meta=meta, applied_operations=small.applied_operations)
        return result

    def _check_values(self, file: Path, mask: Image.Image) -> None:
        if self.allowed is None:
            return
        counts = mask.histogram()
        unknown = {value: count for value, count in enumerate(counts) if count and value not in self.allowed}
        if unknown:
            some = ", ".join(f"{value} ({count} pixels)" for value, count in list(unknown.items())[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise DataError(
                f"{file} holds the values {some}{more}. Expected {', '.join(map(str, sorted(self.allowed)))}: "
                "threshold the mask and save it without loss (PNG, resized by nearest neighbour only), or name the "
                "values of the masks with --regions, such as {'lesion': [1]}."
            )


def _opened(file: Path) -> Image.Image:
    if not file.exists():
        raise missing_file(file)
    try:
        return Image.open(file)
    except Exception as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    cause = "It is truncated, damaged or no picture; copy or download it again. Expected JPEG, PNG or BMP."
    return unreadable(file, error, cause)


def check_size(file: Path, size: Sequence[int], photograph: Path, own_size: Sequence[int]) -> None:
    """Check that a mask of ``size`` (columns, rows) has the size of its photograph, both in display orientation.

    Raises:
        DataError: if the sizes differ.
    """
    size, own_size = tuple(size), tuple(own_size)
    if size != own_size:
        remedy = (
            "The mask fits the photograph as it is stored, without the rotation that its EXIF data ask for: rotate the "
            "mask alike, or remove the tag from the photograph."
            if size == own_size[::-1]
            else "Take the mask that was drawn on this photograph, or resize the one to the other's size, a mask by "
            "nearest neighbour."
        )
        raise DataError(
            f"{file} has {size[0]}x{size[1]} pixels, but {photograph} is displayed with "
            f"{own_size[0]}x{own_size[1]}. {remedy}"
        )


def _scaled(own_size: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """Return the affine of a resized picture, which keeps the outer edges in place."""
    affine = PIXEL_AFFINE.clone()
    for axis, factor in enumerate(own / new for own, new in zip(own_size, size, strict=True)):
        affine[axis, axis] *= factor
        affine[axis, 3] = -(factor - 1) / 2
    return affine
