# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of single cases of an inference: the outlines of the prediction on one slice or on the photograph."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch.nn.functional as F
from ignite.engine import Engine, Events
from numpy.typing import NDArray

from segan_monai.errors import OutputError
from segan_monai.files import whole_file
from segan_monai.pictures.overlay_picture import (
    COLOURS,
    black_figure,
    content_box,
    on_grid,
    outline_mask,
    show_plane,
    to_ras,
)
from segan_monai.pictures.photograph_picture import LONGEST_SIDE, PHOTOGRAPH_COLOURS
from segan_monai.transforms.load_photograph import read_photograph

logger = logging.getLogger(__name__)


class CasePicture:
    """Handler that writes ``<case>_overlay.png`` for each case of an inference.

    It shows the axial slice with the largest predicted area, or the middle slice if the prediction is empty, in
    radiological orientation: anterior up, the patient's right on the left. Each modality is one panel with the outlines
    of all regions.

    Expects a batch with ``case`` and the image, and an output with the label map ``pred`` (1, H, W, D). The image (C,
    H, W, D) has the label map's field of view, with planes of any size. The file is added to ``saved_files`` of the
    output, so attach this handler before ``CaseJournal``. A picture that cannot be drawn is logged and costs nothing
    else.

    Args:
        output_dir: receives the pictures.
        regions: label values of every region in the prediction.
        modalities: names of the image channels.
        image_key: key of the image in the batch or, as a fallback, in the output.

    Raises:
        OutputError: When the engine runs, if a picture cannot be written.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        regions: Mapping[str, Sequence[int]],
        modalities: Sequence[str],
        image_key: str = "image",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.regions = regions
        self.modalities = modalities
        self.image_key = image_key

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Write the pictures of an iteration's cases; those that failed have left the lists empty."""
        for batch, output in zip(cast(list, engine.state.batch), cast(list, engine.state.output), strict=True):
            file = self.output_dir / f"{batch['case']}_overlay.png"
            try:
                figure = self.draw(batch, output)
                with whole_file(file) as temporary:
                    figure.savefig(temporary, dpi=100)
            except OutputError:
                raise
            except Exception as error:  # of matplotlib, on images of odd shapes
                logger.warning("no picture of case %s (%s: %s)", batch["case"], type(error).__name__, error)
                continue
            output["saved_files"] = [*output.get("saved_files", ()), str(file)]

    def draw(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> Any:
        """Return the figure of a case."""
        image = to_ras(batch.get(self.image_key, output.get(self.image_key)))[0]
        (prediction,), spacing = to_ras(output["pred"])
        area = (prediction != 0).sum((0, 1))
        z = int(area.argmax()) if area.any() else len(area) // 2
        planes = on_grid(image[..., [z]], prediction.shape[:2])[..., 0]
        box = content_box(planes)
        figure, axes = black_figure(1, len(planes), (max(3.4 * len(planes), 4.0), 3.8))
        for axis, plane, modality in zip(axes[0], planes, self.modalities, strict=True):
            show_plane(axis, plane[box], spacing[1] / spacing[0])
            axis.set_title(f"{modality}, slice {z + 1} of {len(area)}", color="white", fontsize=8)
        self._outline(figure, axes[0], prediction[..., z][box], COLOURS)
        return figure

    def _outline(self, figure: Any, axes: NDArray[Any], labels: NDArray[Any], colours: Sequence[str]) -> None:
        """Draw the outlines of all regions of a plane (X, Y) on every panel, with a legend."""
        from matplotlib.lines import Line2D

        handles = []
        for colour, (region, values) in zip(colours, self.regions.items(), strict=False):
            handles.append(Line2D([], [], color=colour, label=region))
            for axis in axes:
                outline_mask(axis, np.isin(labels, list(values)), colour, "solid")
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, labelcolor="white",
                      facecolor="black", edgecolor="black")  # fmt: skip


class PhotographCasePicture(CasePicture):
    """``CasePicture`` of photographs: the label map ``pred`` (1, columns, rows) on the file of the image.

    Args:
        output_dir: receives the pictures.
        regions: label values of every region in the prediction.
    """

    def __init__(self, output_dir: str | os.PathLike[str], regions: Mapping[str, Sequence[int]]) -> None:
        super().__init__(output_dir, regions, ["photograph"])

    def draw(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> Any:
        """Return the figure of a photograph, in reduced size."""
        labels = output["pred"].as_tensor()
        factor = min(LONGEST_SIDE / max(labels.shape[1:]), 1)
        size = [max(round(length * factor), 1) for length in labels.shape[1:]]
        pixels, _ = read_photograph(Path(batch["image"].meta["source_files"]), size)
        small = F.interpolate(labels[None].float(), tuple(size), mode="nearest-exact")[0, 0].cpu().numpy()
        figure, axes = black_figure(1, 1, (4.0, 4.0))
        axes[0][0].imshow(np.asarray(pixels).swapaxes(0, 1))
        self._outline(figure, axes[0], small, PHOTOGRAPH_COLOURS)
        return figure
