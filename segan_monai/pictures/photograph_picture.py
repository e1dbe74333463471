# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Figure of an evaluation on photographs, with outlines for the worst, the median and the best case."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Engine
from numpy.typing import NDArray

from segan_monai.pictures.overlay_picture import OverlayPicture, ShownCase, dice_of, outline
from segan_monai.report.previews import CasePreview
from segan_monai.transforms.load_photograph import read_photograph

LONGEST_SIDE = 640  # pixels of a photograph in the figure
PHOTOGRAPH_COLOURS = ["cyan", "yellow", "lime", "magenta", "orange", "white"]  # distinct from skin


class PhotographPicture(OverlayPicture):
    """``OverlayPicture`` for photographs: in colour, upright, in their original proportions.

    Requires in the batch ``case``, ``image`` from ``LoadPhotographd`` (its file is read again), and ``label``
    (1, columns, rows) at the photograph's original size; in the output, ``pred`` of the same size. Only small copies
    are held in memory.

    Args:
        file: output file.
        regions: label values of every region in the reference.
        prediction_regions: the same for the prediction.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        regions: Mapping[str, Sequence[int]],
        prediction_regions: Mapping[str, Sequence[int]],
    ) -> None:
        super().__init__(file, regions, prediction_regions, ["photograph"])
        self.colours = PHOTOGRAPH_COLOURS

    def collect(self, engine: Engine) -> None:
        """Collect a small copy of each case of an iteration."""
        batches, outputs = cast(list, engine.state.batch), cast(list, engine.state.output)
        for batch, output in zip(batches, outputs, strict=True):
            if not output["dice"]:
                continue
            own_size = batch["label"].shape[1:]
            factor = min(LONGEST_SIDE / max(own_size), 1)
            size = [max(round(length * factor), 1) for length in own_size]
            pixels, _ = read_photograph(Path(batch["image"].meta["source_files"]), size)
            truth = _small_masks(batch["label"], self.regions, size)
            found = _small_masks(output["pred"], self.prediction_regions, size)
            self.keep(ShownCase(batch["case"], dice_of(output), pixels, truth, found, 1.0))

    def preview(self, shown: ShownCase) -> CasePreview:
        """Convert a photograph to display orientation."""
        reference, prediction = (np.stack(masks).transpose(3, 0, 2, 1) for masks in (shown.reference, shown.prediction))
        image = np.asarray(shown.image).swapaxes(0, 1)[None, None]
        image = image if image.dtype == np.uint8 else (np.clip(image, 0, 1) * 255).astype(np.uint8)
        return CasePreview(shown.case, shown.dice, ["photograph"], list(self.regions), image, reference, prediction)

    def draw_case(self, axes: NDArray[Any], name: str, shown: ShownCase) -> None:
        """Draw one photograph."""
        (axis,) = axes
        draw_photograph(axis, f"{name}: {shown.case}", shown, self.colours)


def draw_photograph(axis: Any, title: str, shown: ShownCase, colours: Sequence[str]) -> None:
    """Draw a photograph with outlines."""
    axis.imshow(shown.image.swapaxes(0, 1), aspect=shown.aspect)
    outline(axis, shown, colours)
    axis.set_title(f"{title}, Dice {shown.dice:.2f}", color="white", fontsize=8)


def _small_masks(
    label_map: torch.Tensor, regions: Mapping[str, Sequence[int]], size: Sequence[int]
) -> list[NDArray[Any]]:
    """Return the masks (X, Y, 1) of the regions at the size of the figure."""
    full = label_map.as_tensor() if hasattr(label_map, "as_tensor") else label_map
    small = F.interpolate(full[None].float(), tuple(size), mode="nearest-exact")[0, 0].cpu().numpy()
    return [np.isin(small, list(values))[..., None] for values in regions.values()]
