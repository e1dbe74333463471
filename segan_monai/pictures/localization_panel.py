# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Figure of localization results: slice with boxes, heatmap, recalibrated RoI and its mask, one row per case."""

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
from segan_monai.pictures.overlay_picture import black_figure, outline_mask, show_plane, to_ras
from segan_monai.transforms.rand_slices import neighbouring_slices

COLUMNS = ("slice and boxes", "heatmap", "recalibrated RoI", "mask in the RoI")


class LocalizationPanel:
    """Handler that draws the intermediate results of an ``LSNet`` for the first cases of an evaluation, as a PNG.

    Each row shows the slice with the largest reference area, in radiological orientation:

    - the slice with true boxes (solid) and predicted boxes without margin (dotted);
    - the heatmap of the region;
    - the most probable RoI, recalibrated as input of S-Net;
    - S-Net's mask in that RoI (dashed) and the reference (solid).

    Networks without RoIs produce no figure. The batch must contain ``image`` (1, X, Y, D) in RAS order and a label map
    ``label`` (1, H, W, D).

    Args:
        file: output file.
        network: the evaluated network.
        regions: label values of every region; the first region is shown.
        most: maximum number of cases.
        neighbours: slices on each side that the network sees as channels.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        network: Any,
        regions: dict[str, Sequence[int]],
        most: int = 4,
        neighbours: int = 0,
    ) -> None:
        self.file = Path(file)
        self.network = network
        self.values = list(next(iter(regions.values())))
        self.most = most
        self.neighbours = neighbours
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def collect(self, engine: Engine) -> None:
        """Collect the rows of an iteration's cases."""
        if not hasattr(self.network, "locate"):
            return
        for batch in cast(list, engine.state.batch)[: self.most - len(self.rows)]:
            truth = np.isin(to_ras(batch["label"])[0][0], self.values)
            z = int(truth.sum((0, 1)).argmax())
            slices = batch["image"].as_tensor().movedim(-1, 0)[None]
            plane = neighbouring_slices(slices, torch.tensor([z], device=slices.device), self.neighbours)
            self.rows.append({"case": batch["case"], **look(self.network, plane, truth[..., z])})

    def draw(self, engine: Engine) -> None:
        """Write the figure, on rank 0 only and for its cases."""
        if not self.rows or idist.get_rank() > 0:
            return
        size = (3 * len(COLUMNS), 3.2 * len(self.rows))
        figure, axes = black_figure(len(self.rows), len(COLUMNS), size)
        for line, row in zip(axes, self.rows, strict=True):
            draw_localization(line, row)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.file, dpi=110)


def look(network: Any, plane: torch.Tensor, truth: NDArray[Any]) -> dict[str, Any]:
    """Run an ``LSNet`` on a slice (1, C, X, Y) and return its intermediate results with those of the true mask.

    The middle one of C channels is shown, which is the slice between its neighbours. The mask may have any size. The
    network's mode is restored afterwards.
    """
    plane = plane.to(next(network.parameters()).device).float()
    mask = torch.from_numpy(truth.astype(np.float32))[None, None].to(plane.device)
    mask = torch.nn.functional.interpolate(mask, tuple(plane.shape[2:]), mode="nearest-exact")
    with eval_mode(network):
        found = network.localizer(network.localizer_input(plane))
        heat = found[0] if isinstance(found, tuple) else found
        rois = network.in_input(network.localizer.find_rois(found), plane.shape[2:])
        own = (rois.channel == 0).nonzero().flatten()
        shown = {
            "image": _middle(plane),
            "heat": _array(heat[:, :1].float().sigmoid()),
            "true": object_boxes(_array(mask) > 0.5),
            "found": rois.edges()[own].float().cpu().numpy(),
            "roi": None,
        }
        if len(own):
            best = type(rois)(*(part[own[rois.scores[own].argmax()]][None] for part in rois))
            theta = network.affine(best, plane.shape[2:])
            roi = network.recalibrate(plane, theta)
            shown["roi"] = _middle(roi)
            shown["roi_mask"] = _array(network.segmentor(roi)[:, :1].float().sigmoid()) > 0.5
            shown["roi_truth"] = _array(network.recalibrate(mask, theta)) > 0.5
    return shown


def draw_localization(axes: NDArray[Any], row: dict[str, Any]) -> None:
    """Draw the result of ``look``, with the title ``case``, in four panels."""
    for axis, title in zip(axes, COLUMNS, strict=True):
        axis.set_title(title, color="white", fontsize=8)
    show_plane(axes[0], row["image"])
    axes[0].set_title(f"{row['case']}: {COLUMNS[0]}", color="white", fontsize=8)
    for edges, style in ((row["true"], "solid"), (row["found"], "dotted")):
        for x0, y0, x1, y1 in edges - 0.5:  # the plane is (X, Y): RoI edges along columns are along y
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


def _middle(stack: torch.Tensor) -> NDArray[Any]:
    """Return the slice between its neighbours."""
    return _array(stack[:, stack.shape[1] // 2 :])


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor[0, 0].cpu().numpy()
