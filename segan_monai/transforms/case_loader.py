# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Base class of the transforms that read cases, with the rules that their files must follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from monai.transforms import MapTransform

from segan_monai.grids import Grid


class Header(NamedTuple):
    """Header of an image file.

    Attributes:
        grid: name, shape (H, W, D) and affine; for pictures, shape (columns, rows, 1) and pixels of 1 mm.
        channels: number of channels; for pictures, 1 if grey and 3 if in colour.
        dtype: type of the stored voxels, such as ``int16``.
        is_picture: whether the file is a picture, whose spacing is meaningless.
        placed: whether the header gives the volume's position; if not, the affine is a default.
    """

    grid: Grid
    channels: int
    dtype: str
    is_picture: bool
    placed: bool


class CaseLoader(MapTransform, ABC):
    """A transform that reads a case from its files: the image under the first key, label maps under the others.

    ``segan-monai check``, and every run before it reads images, call the two methods with the headers of a case. They
    raise the errors that loading the case would raise, as far as headers show them.
    """

    @abstractmethod
    def check_image_headers(self, case: Mapping[Hashable, Any], images: Sequence[Header]) -> None:
        """Check the kind of the image's files and the number of channels.

        Args:
            case: the case.
            images: headers of the image's files, one per file.

        Raises:
            DataError: this loader cannot read the files as one image.
        """

    @abstractmethod
    def check_grids(self, images: Sequence[Header], labels: Sequence[Header]) -> None:
        """Check that the files of the image share one grid, and that each label map fits it.

        Args:
            images: headers of the image's files, one per file.
            labels: headers of the label maps.

        Raises:
            DataError: a grid or a size differs.
        """
