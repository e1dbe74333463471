# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Figure of an evaluation: outlines of reference and prediction for the worst, the median and the best case."""

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

from segan_monai.processes import gather_objects
from segan_monai.report.previews import CasePreview, save_previews

MOST_SLICES = 24  # slices per case in the report
MOST_CASES = 24  # cases held in memory until the median is known
COLOURS = [f"C{index}" for index in (8, 3, 9, 1, 2, 4, 6, 7)]  # region colours


@dataclass(frozen=True)
class ShownCase:
    """Displayed data of a case: axial slices in RAS+ order, or a photograph."""

    case: str
    dice: float
    image: NDArray[Any]  # (C, X, Y, N); photographs: (X, Y, 3)
    reference: list[NDArray[Any]]  # one mask (X, Y, N) per region
    prediction: list[NDArray[Any]]
    aspect: float  # voxel size along Y over that along X
    middle: int = 0  # index of the slice shown in the figure
    boxes: list[list[NDArray[Any]]] = field(default_factory=list)  # per slice: RoI edges [x0, y0, x1, y1]


def to_ras(volume: MetaTensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """Reorder a volume (C, H, W, D) to RAS axes; return it and the voxel size in mm."""
    affine = volume.affine.cpu().numpy()
    array = volume.detach().cpu().numpy()
    spacing = nib.affines.voxel_sizes(affine)
    orientation = nib.orientations.io_orientation(affine)
    reordered = [nib.orientations.apply_orientation(channel, orientation) for channel in array]
    order = np.argsort(orientation[:, 0])
    return np.stack(reordered), spacing[order]


def content_box(image: NDArray[Any]) -> tuple[slice, slice]:
    """Return the bounding box of the nonzero part of slices (C, X, Y[, N]) with a margin; everything if all are 0."""
    used = (image != 0).any(axis=(0, *range(3, image.ndim)))
    spans = [np.flatnonzero(used.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(max(s[0] - 4, 0), s[-1] + 5) if s.size else slice(None) for s in spans)
    return rows, columns


def chosen_slices(area: NDArray[Any], middle: int, most: int = MOST_SLICES) -> list[int]:
    """Select slices with nonzero ``area`` and two more on either side, thinned out evenly, and always ``middle``."""
    used = np.flatnonzero(area)
    first, last = (used[0] - 2, used[-1] + 2) if used.size else (middle - 2, middle + 2)
    span = np.arange(max(first, 0), min(last, len(area) - 1) + 1)
    thinned = span[np.linspace(0, len(span) - 1, min(most - 1, len(span))).round().astype(int)]
    return sorted({*thinned.tolist(), middle})


def on_grid(slices: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Resize slices (C, X, Y, N) from the size of the network's input to that of the label map."""
    if slices.shape[1:3] == tuple(size):
        return slices
    planes = torch.from_numpy(slices).movedim(-1, 0).float()
    return F.interpolate(planes, tuple(size), mode="bilinear", antialias=True).movedim(0, -1).numpy()


def chosen_cases(cases: Sequence[ShownCase], scores: Sequence[float]) -> dict[str, ShownCase]:
    """Select the worst, the median and the best case, by role; with fewer than three cases, select all.

    Args:
        cases: the cases held in memory.
        scores: Dice of all cases of the run, which determine the median.
    """
    ranked = sorted(cases, key=lambda kept: (kept.dice, kept.case))
    if len(ranked) < 3:
        return {f"case {index + 1}": kept for index, kept in enumerate(ranked)}
    median = sorted(scores)[len(scores) // 2]
    inner = len(ranked) // 2
    if len(ranked) < len(scores):
        inner = min(range(1, len(ranked) - 1), key=lambda index: abs(ranked[index].dice - median))
    return {"worst": ranked[0], "median": ranked[inner], "best": ranked[-1]}


class OverlayPicture:
    """Handler that draws the worst, the median and the best case of an evaluation, by mean Dice over regions, as a PNG.

    - It shows the axial slice with the largest reference area, or the largest predicted area if there is no reference.
      Other slices with either are saved to ``previews.npz`` in the same folder, for the run's report.
    - Slices are in radiological orientation: anterior up, the patient's right on the left. Outlines of the reference
      are solid, those of the prediction dashed.
    - At most 24 cases are held in memory. With more cases, the median is the nearest case in memory.

    Attach it after ``EvaluationReport``, whose Dice it shows. Requires its batch and output, and ``image`` (C, H, W, D)
    in the batch. The image has the label map's field of view, with planes of any size.

    Args:
        file: output file.
        regions: label values of every region in the reference.
        prediction_regions: the same for the prediction.
        modalities: names of the image channels.
        image_key: key of the image in the batch or, as a fallback, in the output.
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
        self.colours = COLOURS
        self.slices: list[ShownCase] = []
        self.scores: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def start(self, engine: Engine) -> None:
        """Clear the cases of an earlier run."""
        self.slices, self.scores = [], []

    def collect(self, engine: Engine) -> None:
        """Collect slices of each case of an iteration."""
        batches, outputs = cast(list, engine.state.batch), cast(list, engine.state.output)
        for number, (batch, output) in enumerate(zip(batches, outputs, strict=True)):
            if not output["dice"]:  # labelled for none of the regions
                continue
            image = to_ras(batch.get(self.image_key, output.get(self.image_key)))[0]
            (reference,), spacing = to_ras(batch["label"])
            (prediction,) = to_ras(output["pred"])[0]
            truth = [np.isin(reference, list(values)) for values in self.regions.values()]
            found = [np.isin(prediction, list(values)) for values in self.prediction_regions.values()]
            true_area, found_area = (np.any(masks, axis=0).sum((0, 1)) for masks in (truth, found))
            area = true_area if true_area.any() else found_area
            z = int(area.argmax()) if area.any() else image.shape[-1] // 2
            slices = chosen_slices(true_area + found_area, z)
            planes = on_grid(image[..., slices], reference.shape[:2])
            shown = content_box(planes)
            scale = np.divide(reference.shape[:2], image.shape[1:3])
            offset = [span.start or 0 for span in shown]
            boxes = [
                [np.tile(scale, 2) * box - np.tile(offset, 2) - 0.5 for box in self.boxes(number, one)]
                for one in slices
            ]
            self.keep(
                ShownCase(
                    batch["case"],
                    dice_of(output),
                    planes[:, shown[0], shown[1]].copy(),
                    [mask[..., slices][shown].copy() for mask in truth],
                    [mask[..., slices][shown].copy() for mask in found],
                    spacing[1] / spacing[0],
                    slices.index(z),
                    boxes,
                )
            )

    def keep(self, shown: ShownCase) -> None:
        """Add a case; beyond ``MOST_CASES``, drop the inner case whose Dice is farthest from the median."""
        self.scores.append(shown.dice)
        self.slices.append(shown)
        if len(self.slices) > MOST_CASES:
            self.slices.sort(key=lambda kept: kept.dice)
            median = float(np.median(self.scores))
            inner = range(1, len(self.slices) - 1)  # never the worst or the best
            self.slices.pop(max(inner, key=lambda index: abs(self.slices[index].dice - median)))

    def boxes(self, number: int, z: int) -> list[NDArray[Any]]:
        """Return the boxes on an axial slice of a case of the batch: edges x0, y0, x1, y1 on the network's grid."""
        return []

    def draw(self, engine: Engine) -> None:
        """Write the figure and the slices for the report, on rank 0 only."""
        slices = [shown for of_process in gather_objects(self.slices) for shown in of_process]
        scores = [dice for of_process in gather_objects(self.scores) for dice in of_process]
        if not slices or idist.get_rank() > 0:
            return
        rows = chosen_cases(slices, scores)
        columns = len(self.modalities)
        size = (max(3.4 * columns, 6.0), 3.6 * len(rows) + 0.5)
        figure, axes = black_figure(len(rows), columns, size)
        for line, (name, shown) in zip(axes, rows.items(), strict=True):
            self.draw_case(line, name, shown)
        outline_legend(figure, list(self.regions), self.colours)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.file, dpi=120)
        save_previews(self.file.with_name("previews.npz"), {role: self.preview(shown) for role, shown in rows.items()})

    def preview(self, shown: ShownCase) -> CasePreview:
        """Convert a case to display orientation: anterior up, the patient's right on the left."""
        reference, prediction = (
            np.stack(masks).transpose(3, 0, 2, 1)[..., ::-1, ::-1] for masks in (shown.reference, shown.prediction)
        )
        low, high = np.percentile(shown.image, [0.5, 99.5], axis=(1, 2, 3), keepdims=True)
        grey = np.clip((shown.image - low) / np.maximum(high - low, 1e-6), 0, 1) * 255
        image = grey.astype(np.uint8).transpose(3, 0, 2, 1)[..., ::-1, ::-1]
        height, width = image.shape[2:]
        boxes = [
            [[width - 1 - x1, height - 1 - y1, width - 1 - x0, height - 1 - y0] for x0, y0, x1, y1 in of_slice]
            for of_slice in shown.boxes
        ]
        return CasePreview(
            shown.case,
            shown.dice,
            list(self.modalities),
            list(self.regions),
            image,
            reference,
            prediction,
            aspect=float(shown.aspect),
            middle=shown.middle,
            boxes=[[[float(edge) + 0.5 for edge in box] for box in of_slice] for of_slice in boxes],
        )

    def draw_case(self, axes: NDArray[Any], name: str, shown: ShownCase) -> None:
        """Draw one case with one panel per modality."""
        draw_slice(axes, f"{name}: {shown.case}", shown, self.modalities, self.colours)


def dice_of(output: Mapping[str, Any]) -> float:
    """Return the mean Dice of a case over the regions that it is labelled for."""
    return float(np.mean(list(output["dice"].values())))


def black_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, NDArray[Any]]:
    """Create a black figure of a size in inches; return it and its frameless axes (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def outline_legend(figure: Any, regions: Sequence[str], colours: Sequence[str]) -> None:
    """Add a legend of region colours and outline styles below the panels."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, label=region) for colour, region in zip(colours, regions, strict=False)]
    handles += [Line2D([], [], color="white", ls=s, label=n) for s, n in (("-", "reference"), ("--", "prediction"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, labelcolor="white",
                  facecolor="black", edgecolor="black")  # fmt: skip


def draw_slice(
    axes: NDArray[Any], title: str, shown: ShownCase, modalities: Sequence[str], colours: Sequence[str]
) -> None:
    """Draw a slice with outlines, one panel per modality."""
    for axis, channel, modality in zip(axes, shown.image, modalities, strict=True):
        show_plane(axis, channel[..., shown.middle], shown.aspect)
        outline(axis, shown, colours)
        for x0, y0, x1, y1 in shown.boxes[shown.middle] if shown.boxes else []:
            axis.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="white", linewidth=0.8, linestyle="dotted")
        axis.set_title(f"{title}, {modality}, Dice {shown.dice:.2f}", color="white", fontsize=8)


def show_plane(axis: Any, plane: NDArray[Any], aspect: float = 1.0, **how: Any) -> None:
    """Draw a plane (X, Y) in RAS order: anterior or superior up, the patient's right on the left."""
    axis.imshow(plane.T, origin="lower", aspect=aspect, interpolation="nearest", **({"cmap": "gray"} | how))
    axis.set_xlim(len(plane) - 0.5, -0.5)


def outline(axis: Any, shown: ShownCase, colours: Sequence[str]) -> None:
    """Draw the outlines of a case on a panel: reference solid, prediction dashed."""
    for colour, truth, found in zip(colours, shown.reference, shown.prediction, strict=False):
        for masks, style in ((truth, "solid"), (found, "dashed")):
            outline_mask(axis, masks[..., shown.middle], colour, style)


def outline_mask(axis: Any, mask: NDArray[Any], colour: str, style: str, width: float = 1.1) -> None:
    """Draw the outline of a mask (X, Y)."""
    if mask.any() and not mask.all():
        axis.contour(mask.T, levels=[0.5], colors=[colour], linewidths=width, linestyles=style)
