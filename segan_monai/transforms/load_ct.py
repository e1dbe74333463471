# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Loading of CT volumes, and of CT slices saved as 8-bit pictures."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from PIL import Image, ImageOps

from segan_monai.errors import ConfigError, DataError, missing_file, unreadable
from segan_monai.file_kinds import is_picture
from segan_monai.transforms.case_loader import Header
from segan_monai.transforms.load_case import LoadCased

logger = logging.getLogger(__name__)

_WORLD = {"L": (0, -1.0), "R": (0, 1.0), "P": (1, -1.0), "A": (1, 1.0)}  # RAS+
_FAT, _WATER = -50, 0  # Hounsfield units that nearly every CT of a body has values below and above
_BACKGROUND = 127  # highest grey value in a mask picture that is not the organ
_GREY_TOLERANCE = 16  # maximum channel difference, as caused by lossy compression


class LoadCTd(LoadCased):
    """Load a CT volume, or a picture of an axial slice as a volume of one slice.

    Volumes are loaded as by ``LoadCased``. Pictures are turned as their EXIF orientation says. Grey values 0 to 255 of
    a picture are mapped to the Hounsfield units of its window, and its axes determine the affine, so later transforms
    treat both alike. The pixel spacing of a picture is unknown and set to 1 mm. A mask picture is 1 where its grey
    value exceeds 127, which is robust to lossy JPEG. Pixels of exactly ``ignore_label`` (at most 127) keep that value,
    which needs a lossless picture such as PNG.

    Args:
        keys: the image first, then label maps on its grid.
        picture_window: Hounsfield units of black and white in pictures.
        picture_axes: directions of the columns and rows of a picture: ``LP`` for the radiological view, ``LA`` if it is
            upside down (the back on top).
        ignore_label: value of pixels whose label is unknown; None for none.
        hounsfield: whether to warn of volumes whose values are not Hounsfield units.
        of_pictures: whether to warn of volumes, because the network was trained on pictures.
        **settings: arguments of ``LoadCased``.

    Returns:
        The dictionary with MetaTensors in float32: image (1, X, Y, slices) in Hounsfield units, label map (1, X, Y,
        slices) of whole numbers.

    Raises:
        DataError: on call, as ``LoadCased``; also if a picture is damaged, in colour or of more than 8 bits, or if a
            nonzero mask has no value above 127.
        ConfigError: if ``picture_axes`` or ``picture_window`` is invalid; on call, if a mask is a picture and
            ``ignore_label`` is above 127, the values of the organ.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        picture_window: Sequence[float] = (0.0, 255.0),
        picture_axes: str = "LP",
        ignore_label: int | None = None,
        hounsfield: bool = False,
        of_pictures: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(keys, num_channels=settings.pop("num_channels", 1), **settings)
        directions = [_WORLD.get(letter, (None, 0)) for letter in picture_axes]
        if len(picture_axes) != 2 or {axis for axis, _ in directions} != {0, 1}:
            raise ConfigError(
                f"picture_axes is '{picture_axes}'; expected where columns and rows lead, one of L, R and one of A, P, "
                "such as LP (seen as usual) or LA (upside down)."
            )
        if not picture_window[0] < picture_window[1]:
            raise ConfigError(f"picture_window is {list(picture_window)}; expected two Hounsfield units, lower first.")
        self.picture_window = (float(picture_window[0]), float(picture_window[1]))
        self.ignore_label = ignore_label
        self.hounsfield = hounsfield
        self.of_pictures = of_pictures
        self.warned: set[Any] = set()
        self.affine = torch.zeros(4, 4, dtype=torch.float64)
        self.affine[2, 2] = self.affine[3, 3] = 1
        for column, (axis, sign) in enumerate(directions):
            self.affine[axis, column] = sign

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load and check the keys; everything else in ``data`` is kept."""
        pictures = {key: is_picture(data.get(key)) for key in self.keys}
        case = super().__call__(data)
        if self.keys[0] in case and not pictures[self.keys[0]] and case.get("case") not in self.warned:
            self._warn(case.get("case"), case[self.keys[0]])
        lower, upper = self.picture_window
        for key, from_picture in pictures.items():
            if not from_picture:
                continue
            loaded = case[key]
            if key == self.keys[0]:
                loaded.set_array(loaded.as_tensor() * ((upper - lower) / 255) + lower)
            else:
                loaded.set_array(_mask(loaded, self.ignore_label))
        return case

    def _warn(self, name: Any, volume: MetaTensor) -> None:
        """Log what makes the result of a volume doubtful, once per case."""
        self.warned.add(name)
        if self.of_pictures:
            logger.warning(
                "case %s is a volume, but the network was trained on slices saved as pictures, whose window and pixel "
                "size are others: look at the result, and train a network on volumes",
                name,
            )
        if not self.hounsfield:
            return
        values = volume.as_tensor()
        lowest, highest = float(values.min()), float(values.max())
        if lowest > _FAT or highest < _WATER:
            logger.warning(
                "case %s has values from %g to %g; expected Hounsfield units: fat and air below %d, tissue above %d. "
                "Subtract an offset such as 1024. For other values, set --hu_window to a window that begins at 0 or "
                "above, or to null.",
                name,
                lowest,
                highest,
                _FAT,
                _WATER,
            )

    def _seen(self, header: Header) -> Header:
        if not header.is_picture:
            return header
        return header._replace(channels=1, grid=header.grid._replace(affine=self.affine.numpy()))

    def _read(self, file: Path) -> MetaTensor:
        if not is_picture(file):
            return super()._read(file)
        if not file.exists():
            raise missing_file(file)
        try:
            with Image.open(file) as opened:
                pixels = _grey(ImageOps.exif_transpose(opened), file)
        except DataError:
            raise
        except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error, ...
            raise unreadable(file, error) from error
        meta = {
            "affine": self.affine.clone(),
            "original_affine": self.affine.clone(),
            "spatial_shape": np.array([*pixels.T.shape, 1]),
            "filename_or_obj": str(file),
            "space": "RAS",
        }
        return MetaTensor(torch.from_numpy(pixels.T.astype(np.float32))[None, :, :, None], meta=meta)


def _grey(picture: Image.Image, file: Path) -> np.ndarray:
    """Return the grey values (rows, columns) of a picture, in uint8.

    Pictures of 1 bit become 0 and 255. Pictures with a palette or colour channels must be grey within the tolerance;
    pictures with an alpha channel must be opaque.
    """
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))
    what = f"{file} is a picture of mode {picture.mode}"
    if picture.mode not in ("LA", "RGB", "RGBA", "P", "PA"):  # 16 or 32 bits, CMYK, ...
        raise DataError(
            f"{what} that is not grey with 8 bits. Expected a windowed slice of CT or a mask of 0 and 255; use NIfTI "
            "for Hounsfield units, and convert printing colours (CMYK) to grey with PIL's convert('L')."
        )
    channels = np.asarray(picture.convert("RGBA"))
    if int(channels[..., 3].min()) < 255:
        raise DataError(
            f"{what} with transparent pixels, whose grey values nobody sees. Expected an opaque picture: save it "
            "without alpha channel, on a black background."
        )
    if int(np.ptp(channels[..., :3], axis=2).max()) > _GREY_TOLERANCE:
        raise DataError(
            f"{what} that is not grey with 8 bits. Expected a windowed slice of CT or a mask of 0 and 255: export it "
            "without colour map, overlays and annotations; use NIfTI for Hounsfield units."
        )
    return channels[..., 0]


def _mask(label: MetaTensor, ignore_label: int | None) -> torch.Tensor:
    if ignore_label is not None and ignore_label > _BACKGROUND:
        raise ConfigError(
            f"ignore_label is {ignore_label}, but in a mask picture such as {label.meta.get('source_files')} all above "
            "127 is the organ. Mark unknown pixels with a value from 1 to 127, such as 127, and set ignore_label to it."
        )
    values = label.as_tensor()
    unknown = torch.zeros_like(values, dtype=torch.bool) if ignore_label is None else values == ignore_label
    mask = (values > _BACKGROUND).float()
    brightest = float(values.masked_fill(unknown, 0).max())
    if brightest > 0 and not mask.any():
        raise DataError(
            f"{label.meta.get('source_files')}: a mask whose brightest pixel is {brightest:g}. Expected 0 and 255 (all "
            "above 127 is the organ): multiply it, or save label maps of whole numbers as NIfTI."
        )
    return mask if ignore_label is None else mask.masked_fill(unknown, float(ignore_label))
