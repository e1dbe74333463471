# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A picture of an evaluation: the worst, the median and the best case, outlines of truth and prediction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from numpy.typing import NDArray

from segan_monai.metrics.overlap import overlap_metrics
from segan_monai.processes import gather_from_processes


@dataclass(frozen=True)
class ShownCase:
    """What is shown of a case: an axial slice in RAS+ order, or a photograph."""

    case: str
    dice: float
    image: NDArray[Any]  # (C, X, Y)
    reference: list[NDArray[Any]]  # a mask (X, Y) a region
    prediction: list[NDArray[Any]]
    aspect: float  # millimetres of a voxel along Y over those along X
    boxes: list[NDArray[Any]] = field(default_factory=list)  # edges of RoIs along X and Y: [x0, y0, x1, y1]


def to_ras(volume: MetaTensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """Reorder a volume (C, H, W, D) to right-anterior-superior axes; returns it and the voxel size in mm."""
    affine = volume.affine.cpu().numpy()
    array = volume.detach().cpu().numpy()
    spacing = nib.affines.voxel_sizes(affine)
    orientation = nib.orientations.io_orientation(affine)
    reordered = [nib.orientations.apply_orientation(channel, orientation) for channel in array]
    order = np.argsort(orientation[:, 0])
    return np.stack(reordered), spacing[order]


def content_box(image: NDArray[Any]) -> tuple[slice, slice]:
    """The part of a slice (C, X, Y) that is not 0, with a margin; all of it if nothing is."""
    used = (image != 0).any(0)
    spans = [np.flatnonzero(used.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(max(s[0] - 4, 0), s[-1] + 5) if s.size else slice(None) for s in spans)
    return rows, columns


def _on_grid(plane: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Resize a slice (C, X, Y) that the network saw smaller or larger than it was."""
    if plane.shape[1:] == tuple(size):
        return plane
    return F.interpolate(torch.from_numpy(plane)[None].float(), tuple(size), mode="bilinear", antialias=True)[0].numpy()


class OverlayPicture:
    """Draws the worst, the median and the best case of an evaluator's run (by mean Dice of the regions) as a PNG.

    Of each case the axial slice with most reference (else most prediction) is kept, so memory does not grow with
    volumes. Slices are shown as radiologists see them: anterior up, the patient's right on the left. Reference outlines
    are solid, predicted ones dashed. Expects what `EvaluationReport` expects, and ``image`` (C, H, W, D) in the batch:
    the label map's field of view, whatever its planes' size.

    Args:
        file: the picture.
        regions: label values of every region in the reference.
        prediction_regions: the same for the prediction.
        modalities: names of the image's channels.
        image_key: the image, in the batch or, if it is not there, in the output.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        regions: Mapping[str, Sequence[int]],
        prediction_regions: Mapping[str, Sequence[int]],
        modalities: Sequence[str],
        image_key: str = "image",
    ) -> None:
        self.file = Path(file)
        self.regions = regions
        self.prediction_regions = prediction_regions
        self.modalities = modalities
        self.image_key = image_key
        self.colours = [f"C{index}" for index in (8, 3, 9, 1, 2, 4, 6, 7)]
        self.slices: list[ShownCase] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda: self.slices.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def collect(self, engine: Engine) -> None:
        """Keep one slice of each case of an iteration."""
        batches, outputs = cast(list, engine.state.batch), cast(list, engine.state.output)
        for number, (batch, output) in enumerate(zip(batches, outputs, strict=True)):
            image = to_ras(batch.get(self.image_key, output.get(self.image_key)))[0]
            (reference,), spacing = to_ras(batch["label"])
            (prediction,) = to_ras(output["pred"])[0]
            truth = [np.isin(reference, list(values)) for values in self.regions.values()]
            found = [np.isin(prediction, list(values)) for values in self.prediction_regions.values()]
            area = np.any(truth, axis=0).sum((0, 1))
            area = area if area.any() else np.any(found, axis=0).sum((0, 1))
            z = int(area.argmax()) if area.any() else image.shape[-1] // 2
            plane = _on_grid(image[..., z], reference.shape[:2])
            shown = content_box(plane)
            scale = np.divide(reference.shape[:2], image.shape[1:3])
            offset = [span.start or 0 for span in shown]
            boxes = [np.tile(scale, 2) * box - np.tile(offset, 2) - 0.5 for box in self.boxes(number, z)]
            dice = float(np.mean([overlap_metrics(p, t)["dice"] for p, t in zip(found, truth, strict=True)]))
            self.slices.append(
                ShownCase(
                    batch["case"],
                    dice,
                    plane[:, shown[0], shown[1]].copy(),
                    [mask[..., z][shown].copy() for mask in truth],
                    [mask[..., z][shown].copy() for mask in found],
                    spacing[1] / spacing[0],
                    boxes,
                )
            )

    def boxes(self, number: int, z: int) -> list[NDArray[Any]]:
        """Boxes to draw on an axial slice of a case of the batch: edges x0, y0, x1, y1 on the network's grid."""
        return []

    def draw(self, engine: Engine) -> None:
        """Write the picture; of several processes, the first one does."""
        slices = [shown for of_process in gather_from_processes(self.slices) for shown in of_process]
        if not slices or idist.get_rank() > 0:
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

        ranked = sorted(slices, key=lambda s: (s.dice, s.case))
        chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}
        rows = {} if len(ranked) < 3 else chosen
        rows = rows or {f"case {i + 1}": s for i, s in enumerate(ranked)}
        columns = len(self.modalities)
        figure = Figure(
            figsize=(max(3.4 * columns, 6.0), 3.6 * len(rows) + 0.5), facecolor="black", layout="constrained"
        )
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for line, (name, shown) in zip(axes, rows.items(), strict=True):
            self.draw_case(line, name, shown)
        handles = [Line2D([], [], color=c, label=region) for c, region in zip(self.colours, self.regions, strict=False)]
        handles += [Line2D([], [], color="white", ls=s, label=n) for s, n in (("-", "reference"), ("--", "prediction"))]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, labelcolor="white",
                      facecolor="black", edgecolor="black")  # fmt: skip
        self.file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.file, dpi=120)

    def draw_case(self, axes: NDArray[Any], name: str, shown: ShownCase) -> None:
        """Draw one case: a panel a modality."""
        for axis, channel, modality in zip(axes, shown.image, self.modalities, strict=True):
            axis.imshow(channel.T, cmap="gray", origin="lower", aspect=shown.aspect, interpolation="nearest")
            outline(axis, shown, self.colours)
            for x0, y0, x1, y1 in shown.boxes:
                axis.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="white", linewidth=0.8, linestyle="dotted")
            axis.invert_xaxis()
            axis.set_axis_off()
            axis.set_title(f"{name}: {shown.case}, {modality}, Dice {shown.dice:.2f}", color="white", fontsize=8)


def outline(axis: Any, shown: ShownCase, colours: Sequence[str]) -> None:
    """Draw the outlines of a case on a panel: reference solid, prediction dashed."""
    for colour, truth, found in zip(colours, shown.reference, shown.prediction, strict=False):
        for mask, style in ((truth, "solid"), (found, "dashed")):
            if mask.any() and not mask.all():
                axis.contour(mask.T, levels=[0.5], colors=[colour], linewidths=1.1, linestyles=style)
