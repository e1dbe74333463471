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
from segan_monai.processes import gather_objects
from segan_monai.report.previews import CasePreview, save_previews

MOST_SLICES = 24  # of a case that are kept for the report
MOST_CASES = 24  # that are kept until it is known which one is the median
COLOURS = [f"C{index}" for index in (8, 3, 9, 1, 2, 4, 6, 7)]  # of the regions


@dataclass(frozen=True)
class ShownCase:
    """What is shown of a case: axial slices in RAS+ order, or a photograph."""

    case: str
    dice: float
    image: NDArray[Any]  # (C, X, Y, N), a photograph (X, Y, 3)
    reference: list[NDArray[Any]]  # masks (X, Y, N) a region
    prediction: list[NDArray[Any]]
    aspect: float  # millimetres of a voxel along Y over those along X
    middle: int = 0  # index of the slice that stands for the case
    boxes: list[list[NDArray[Any]]] = field(default_factory=list)  # a slice: RoIs' edges on X and Y, [x0, y0, x1, y1]


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
    """The part of slices (C, X, Y[, N]) that is not 0, with a margin; all of it if nothing is."""
    used = (image != 0).any(axis=(0, *range(3, image.ndim)))
    spans = [np.flatnonzero(used.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(max(s[0] - 4, 0), s[-1] + 5) if s.size else slice(None) for s in spans)
    return rows, columns


def chosen_slices(area: NDArray[Any], middle: int, most: int = MOST_SLICES) -> list[int]:
    """Slices to show: those where `area` is not 0 and two more on either side, evenly thinned out; always `middle`."""
    used = np.flatnonzero(area)
    first, last = (used[0] - 2, used[-1] + 2) if used.size else (middle - 2, middle + 2)
    span = np.arange(max(first, 0), min(last, len(area) - 1) + 1)
    thinned = span[np.linspace(0, len(span) - 1, min(most - 1, len(span))).round().astype(int)]
    return sorted({*thinned.tolist(), middle})


def _on_grid(slices: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Resize slices (C, X, Y, N) that the network saw smaller or larger than they were."""
    if slices.shape[1:3] == tuple(size):
        return slices
    planes = torch.from_numpy(slices).movedim(-1, 0).float()
    return F.interpolate(planes, tuple(size), mode="bilinear", antialias=True).movedim(0, -1).numpy()


def chosen_cases(cases: Sequence[ShownCase], scores: Sequence[float]) -> dict[str, ShownCase]:
    """The worst, the median and the best case by their roles; all of fewer than three.

    Args:
        cases: those that were kept.
        scores: the Dice of all, kept or not: the median is theirs.
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
    """Draws the worst, the median and the best case of an evaluator's run (by mean Dice of the regions) as a PNG.

    It shows the axial slice with most reference (else most prediction); the others with either go to ``previews.npz``
    beside it, for the run's report. Slices of at most 24 cases are kept, so memory does not grow with their number; of
    more cases the median is then the nearest that was kept. Slices are shown as radiologists see them: anterior up, the
    patient's right on the left. Reference outlines are solid, predicted ones dashed. Expects what `EvaluationReport`
    expects, and ``image`` (C, H, W, D) in the batch: the label map's field of view, whatever its planes' size.

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
        self.colours = COLOURS
        self.slices: list[ShownCase] = []
        self.scores: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def start(self, engine: Engine) -> None:
        """Forget the cases of an earlier run."""
        self.slices, self.scores = [], []

    def collect(self, engine: Engine) -> None:
        """Keep slices of each case of an iteration."""
        batches, outputs = cast(list, engine.state.batch), cast(list, engine.state.output)
        for number, (batch, output) in enumerate(zip(batches, outputs, strict=True)):
            image = to_ras(batch.get(self.image_key, output.get(self.image_key)))[0]
            (reference,), spacing = to_ras(batch["label"])
            (prediction,) = to_ras(output["pred"])[0]
            truth = [np.isin(reference, list(values)) for values in self.regions.values()]
            found = [np.isin(prediction, list(values)) for values in self.prediction_regions.values()]
            true_area, found_area = (np.any(masks, axis=0).sum((0, 1)) for masks in (truth, found))
            area = true_area if true_area.any() else found_area
            z = int(area.argmax()) if area.any() else image.shape[-1] // 2
            slices = chosen_slices(true_area + found_area, z)
            planes = _on_grid(image[..., slices], reference.shape[:2])
            shown = content_box(planes)
            scale = np.divide(reference.shape[:2], image.shape[1:3])
            offset = [span.start or 0 for span in shown]
            boxes = [
                [np.tile(scale, 2) * box - np.tile(offset, 2) - 0.5 for box in self.boxes(number, one)]
                for one in slices
            ]
            dice = float(np.mean([overlap_metrics(p, t)["dice"] for p, t in zip(found, truth, strict=True)]))
            self.keep(
                ShownCase(
                    batch["case"],
                    dice,
                    planes[:, shown[0], shown[1]].copy(),
                    [mask[..., slices][shown].copy() for mask in truth],
                    [mask[..., slices][shown].copy() for mask in found],
                    spacing[1] / spacing[0],
                    slices.index(z),
                    boxes,
                )
            )

    def keep(self, shown: ShownCase) -> None:
        """Keep a case, and of more than `MOST_CASES` let go the one that is farthest from all that will be shown."""
        self.scores.append(shown.dice)
        self.slices.append(shown)
        if len(self.slices) > MOST_CASES:
            self.slices.sort(key=lambda kept: kept.dice)
            median = float(np.median(self.scores))
            inner = range(1, len(self.slices) - 1)  # never the worst or the best
            self.slices.pop(max(inner, key=lambda index: abs(self.slices[index].dice - median)))

    def boxes(self, number: int, z: int) -> list[NDArray[Any]]:
        """Boxes to draw on an axial slice of a case of the batch: edges x0, y0, x1, y1 on the network's grid."""
        return []

    def draw(self, engine: Engine) -> None:
        """Write the picture, and the slices for the report; of several processes, the first one does."""
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
        """A case as it lies on the screen: anterior up, the patient's right on the left."""
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
        """Draw one case: a panel a modality."""
        draw_slice(axes, f"{name}: {shown.case}", shown, self.modalities, self.colours)


def black_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, NDArray[Any]]:
    """A black matplotlib figure of a size in inches, and its axes (rows, columns), without frames."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def outline_legend(figure: Any, regions: Sequence[str], colours: Sequence[str]) -> None:
    """Say below the panels which colour is which region, and which line is which outline."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, label=region) for colour, region in zip(colours, regions, strict=False)]
    handles += [Line2D([], [], color="white", ls=s, label=n) for s, n in (("-", "reference"), ("--", "prediction"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, labelcolor="white",
                  facecolor="black", edgecolor="black")  # fmt: skip


def draw_slice(
    axes: NDArray[Any], title: str, shown: ShownCase, modalities: Sequence[str], colours: Sequence[str]
) -> None:
    """Draw a slice: a panel a modality, with outlines."""
    for axis, channel, modality in zip(axes, shown.image, modalities, strict=True):
        show_plane(axis, channel[..., shown.middle], shown.aspect)
        outline(axis, shown, colours)
        for x0, y0, x1, y1 in shown.boxes[shown.middle] if shown.boxes else []:
            axis.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="white", linewidth=0.8, linestyle="dotted")
        axis.set_title(f"{title}, {modality}, Dice {shown.dice:.2f}", color="white", fontsize=8)


def show_plane(axis: Any, plane: NDArray[Any], aspect: float = 1.0, **how: Any) -> None:
    """Show a plane (X, Y) in RAS order as radiologists do: anterior or superior up, the patient's right on the left."""
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
