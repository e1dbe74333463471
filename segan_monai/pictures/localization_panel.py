# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A picture of localization: slice, heatmap, boxes, recalibrated RoI and the mask in it, a row a case."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.networks.utils import eval_mode
from numpy.typing import NDArray

from segan_monai.networks.keypoints import object_boxes
from segan_monai.networks.roi_recalibration import sample_affine
from segan_monai.pictures.overlay_picture import black_figure, outline_mask, show_plane, to_ras

COLUMNS = ("slice and boxes", "heatmap", "recalibrated RoI", "mask in the RoI")


class LocalizationPanel:
    """Draws how a `LSNet` came to its masks, for the first cases of an evaluator's run, as a PNG.

    Of each case the slice with most reference, as radiologists see it: with true boxes (solid) and those found, without
    margin (dotted); the heatmap of the region; the most probable RoI as S-Net sees it, and S-Net's mask in it (dashed)
    beside the reference (solid). A network without RoIs leaves no picture.

    Expects ``image`` (1, X, Y, D) in RAS order and ``label`` (1, H, W, D), a label map, in the batch.

    Args:
        file: the picture.
        network: the one that is evaluated.
        regions: label values of every region; the first is shown.
        most: cases that are shown.
    """

    def __init__(
        self, file: str | os.PathLike[str], network: Any, regions: dict[str, Sequence[int]], most: int = 4
    ) -> None:
        self.file = Path(file)
        self.network = network
        self.values = list(next(iter(regions.values())))
        self.most = most
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def collect(self, engine: Engine) -> None:
        """Keep what is shown of the cases of an iteration."""
        if not hasattr(self.network, "locate"):
            return
        for batch in cast(list, engine.state.batch)[: self.most - len(self.rows)]:
            truth = np.isin(to_ras(batch["label"])[0][0], self.values)
            z = int(truth.sum((0, 1)).argmax())
            plane = batch["image"].as_tensor()[None, ..., z]
            self.rows.append({"case": batch["case"], **look(self.network, plane, truth[..., z])})

    def draw(self, engine: Engine) -> None:
        """Write the picture; of several processes, the first one does, of its own cases."""
        if not self.rows or idist.get_rank() > 0:
            return
        size = (3 * len(COLUMNS), 3.2 * len(self.rows))
        figure, axes = black_figure(len(self.rows), len(COLUMNS), size)
        for line, row in zip(axes, self.rows, strict=True):
            draw_localization(line, row)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.file, dpi=110)


def look(network: Any, plane: torch.Tensor, truth: NDArray[Any]) -> dict[str, Any]:
    """What an `LSNet` makes of a slice (1, 1, X, Y), beside its true mask at any size; the network stays as it is."""
    plane = plane.to(next(network.parameters()).device).float()
    mask = torch.from_numpy(truth.astype(np.float32))[None, None].to(plane.device)
    mask = torch.nn.functional.interpolate(mask, tuple(plane.shape[2:]), mode="nearest-exact")
    with eval_mode(network):
        found = network.localizer(plane)
        heat = found[0] if isinstance(found, tuple) else found
        rois = network.localizer.find_rois(found)
        own = (rois.channel == 0).nonzero().flatten()
        shown = {
            "image": _array(plane),
            "heat": _array(heat[:, :1].float().sigmoid()),
            "true": object_boxes(_array(mask) > 0.5),
            "found": rois.edges()[own].float().cpu().numpy(),
            "roi": None,
        }
        if len(own):
            best = type(rois)(*(part[own[rois.scores[own].argmax()]][None] for part in rois))
            theta = network.affine(best, plane.shape[2:])
            roi = sample_affine(plane, theta)
            shown["roi"] = _array(roi)
            shown["roi_mask"] = _array(network.segmentor(roi)[:, :1].float().sigmoid()) > 0.5
            shown["roi_truth"] = _array(sample_affine(mask, theta)) > 0.5
    return shown


def draw_localization(axes: NDArray[Any], row: dict[str, Any]) -> None:
    """Draw what `look` found, and ``case``, in four panels."""
    for axis, title in zip(axes, COLUMNS, strict=True):
        axis.set_title(title, color="white", fontsize=8)
    show_plane(axes[0], row["image"])
    axes[0].set_title(f"{row['case']}: {COLUMNS[0]}", color="white", fontsize=8)
    for edges, style in ((row["true"], "solid"), (row["found"], "dotted")):
        for x0, y0, x1, y1 in edges - 0.5:  # rows are along x here: an edge along columns is along y
            axes[0].plot([y0, y1, y1, y0, y0], [x0, x0, x1, x1, x0], color="yellow", lw=1.0, ls=style)
    show_plane(axes[1], row["heat"], cmap="inferno", vmin=0, vmax=1)
    axes[1].set_title(f"{COLUMNS[1]}, at most {row['heat'].max():.2f}", color="white", fontsize=8)
    if row["roi"] is None:
        axes[2].set_title("no keypoint", color="white", fontsize=8)
        axes[3].set_title("", fontsize=8)
        return
    show_plane(axes[2], row["roi"])
    show_plane(axes[3], row["roi"])
    for mask, style in ((row["roi_truth"], "solid"), (row["roi_mask"], "dashed")):
        outline_mask(axes[3], mask, "red", style)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor[0, 0].cpu().numpy()
