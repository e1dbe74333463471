# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""One slice of a validation case, in network and in display orientation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from segan_monai.metrics.overlap import overlap_metrics
from segan_monai.pictures.overlay_picture import ShownCase, content_box, show_plane, to_ras
from segan_monai.transforms.rand_slices import neighbouring_slices

_PANEL = 2.4  # inches of height
_NARROWEST = 2.3  # inches of width that a title needs
_TITLE = 0.3


@dataclass(frozen=True)
class LiveSlice:
    """The slice of a case with the largest reference area, or a photograph.

    Attributes:
        case: name of the case.
        dice: mean Dice over the regions, for the whole case.
        image: (C, U, V), without padding.
        stack: ((2 * neighbours + 1) * C, U, V), the network's input: the slice with its neighbours.
        label: (K, U, V), 0 or 1.
        prediction: (K, U, V), 0 or 1.
        axis: slicing axis of the volume; None for a photograph.
        affine: (4, 4) of the volume, RAS, mm.
        normalized: normalized image (C, U, V), if the network normalizes.
        index: position of the slice along the axis.
        volume: image (C, H, W, D), of which the slice is one.
        reference: label (K, H, W, D), 0 or 1.
    """

    case: str
    dice: float
    image: Tensor
    stack: Tensor
    label: Tensor
    prediction: Tensor
    axis: int | None = None
    affine: NDArray[Any] = field(default_factory=lambda: np.eye(4))
    normalized: Tensor | None = None
    index: int = 0
    volume: Tensor | None = None
    reference: Tensor | None = None

    @classmethod
    def of_case(
        cls, batch: Mapping[str, Any], output: Mapping[str, Any], classes: int, axis: int, neighbours: int = 0
    ) -> LiveSlice:
        """Select the slice from the decollated batch and output of an evaluator.

        Args:
            batch: ``case``, ``image`` (C, ...) and ``label``: (K, ...), or (1, ...) with the values 1 to K.
            output: ``pred`` in the form of the label; optionally ``normalized`` (C, ...).
            classes: number of classes K.
            axis: slicing axis of volumes, 0, 1 or 2; ignored for photographs.
            neighbours: neighbouring slices on each side in the network's input.
        """
        image = batch["image"]
        label, prediction = (_masks(maps, classes) for maps in (batch["label"], output["pred"]))
        pairs = zip(prediction.numpy(), label.numpy(), strict=True)
        dice = float(np.mean([overlap_metrics(found, truth)["dice"] for found, truth in pairs]))
        normalized = output.get("normalized")
        affine = np.asarray(image.affine.cpu()) if isinstance(image, MetaTensor) else np.eye(4)
        if image.ndim == 3:
            return cls(batch["case"], dice, _plain(image), _plain(image), label, prediction, None, affine)
        in_plane = [dim for dim in range(4) if dim != 1 + axis]
        area = label.sum(in_plane)
        z = int(area.argmax()) if area.any() else len(area) // 2

        def cut(volume: Tensor) -> Tensor:
            return volume.select(1 + axis, z)

        return cls(
            batch["case"],
            dice,
            cut(_plain(image)),
            neighbouring_slices(_plain(image).movedim(1 + axis, 0)[None], torch.tensor([z]), neighbours)[0],
            cut(label),
            cut(prediction),
            axis,
            affine,
            None if normalized is None else cut(_plain(normalized)),
            z,
            _plain(image),
            label,
        )

    def to_screen(self, planes: Tensor) -> NDArray[Any]:
        """Reorient planes (N, U, V) of the slice to (N, X, Y) in RAS order and crop them to the content.

        X is the first of the two axes, also in sagittal and coronal slices. Photographs stay as they are.
        """
        turned = self._turned(planes)
        return turned if self.axis is None else turned[:, self._content[0], self._content[1]]

    @property
    def aspect(self) -> float:
        """Ratio of pixel height to width, from the spacing in mm or the original pixels of a photograph."""
        spacing = nib.affines.voxel_sizes(self.affine)
        if self.axis is None:
            return float(spacing[1] / spacing[0])
        first, second = np.delete(spacing[np.argsort(self._orientation[:, 0])], self._cut_axis)
        return float(second / first)

    def draw(self, axis: Any, plane: NDArray[Any], **how: Any) -> None:
        """Draw a plane (X, Y) from ``to_screen`` on a panel."""
        if self.axis is None:
            axis.imshow(plane.T, aspect=self.aspect, interpolation="nearest", **({"cmap": "gray"} | how))
        else:
            show_plane(axis, plane, self.aspect, **how)

    def figure_size(self, rows: int, columns: int) -> tuple[float, float]:
        """Return the size, in inches, of a figure with rows and columns of panels for this slice."""
        width, height = self.to_screen(self.image).shape[1:]
        shape = np.clip(width / (height * self.aspect), 0.5, 2.0)
        return float(max(_PANEL * shape, _NARROWEST) * columns), (_PANEL + _TITLE) * rows

    @cached_property
    def shown(self) -> ShownCase:
        """The slice as a ``ShownCase``, for the functions of ``overlay_picture``."""
        image = self.to_screen(self.image)
        reference, prediction = ([m[..., None] > 0.5 for m in self.to_screen(p)] for p in (self.label, self.prediction))
        image = image.transpose(1, 2, 0).clip(0, 1) if self.axis is None else image[..., None]
        return ShownCase(self.case, self.dice, image, reference, prediction, self.aspect)

    @cached_property
    def _content(self) -> tuple[slice, slice]:
        return content_box(self._turned(self.image))

    @property
    def _orientation(self) -> NDArray[Any]:
        return nib.orientations.io_orientation(self.affine)

    @property
    def _cut_axis(self) -> int:
        """The slicing axis in RAS order."""
        return int(self._orientation[self.axis, 0])

    def _turned(self, planes: Tensor) -> NDArray[Any]:
        if self.axis is None:
            return _plain(planes).numpy()
        volume = MetaTensor(_plain(planes).unsqueeze(1 + self.axis), affine=torch.as_tensor(self.affine))
        return to_ras(volume)[0].take(0, axis=1 + self._cut_axis)


def _plain(tensor: Tensor) -> Tensor:
    tensor = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    return tensor.detach().float().cpu()


def _masks(maps: Tensor, classes: int) -> Tensor:
    """Convert a label map or class maps to one boolean map per class."""
    maps = _plain(maps)
    if len(maps) == classes:
        return maps > 0.5
    return torch.cat([maps.round() == value for value in range(1, classes + 1)])
