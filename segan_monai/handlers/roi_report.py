# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""RoIs found by a two-stage network: written as JSON beside the label maps, and compared with reference boxes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from numpy.typing import NDArray

from segan_monai.inferers.roi_slices import RoISliceInferer
from segan_monai.json_files import write_json
from segan_monai.metrics.summary import write_summary
from segan_monai.networks.keypoints import object_boxes
from segan_monai.processes import gather_objects


def boxes_iou(found: NDArray, true: NDArray) -> float:
    """Compute the intersection over union of the areas covered by two sets of boxes, exactly at subpixel precision.

    Args:
        found: (N, 4) predicted edges left, top, right, bottom.
        true: (M, 4) reference edges.

    Returns:
        IoU from 0 to 1; 0 if there are no boxes.
    """
    both = np.concatenate([found, true])
    if not len(both):
        return 0.0
    xs, ys = np.unique(both[:, [0, 2]]), np.unique(both[:, [1, 3]])
    covered = []
    for boxes in (found, true):
        inside = np.zeros((len(ys) - 1, len(xs) - 1), bool)
        for x0, y0, x1, y1 in boxes:
            inside |= ((ys[:-1] >= y0) & (ys[1:] <= y1))[:, None] & ((xs[:-1] >= x0) & (xs[1:] <= x1))
        covered.append(inside)
    area = np.diff(ys)[:, None] * np.diff(xs)
    union = float((area * (covered[0] | covered[1])).sum())
    return float((area * (covered[0] & covered[1])).sum()) / union if union else 0.0


class RoIReport:
    """Writes ``<case>_rois.json`` for each case and, given label maps, adds the mean IoU of boxes to ``summary.json``.

    A RoI is a box without its margin, on the grid of the input file. The summary receives ``roi_iou`` for each region:

    Slices with voxels whose label is unknown do not count, nor do regions that a case was not labelled for.

    - ``mean``: mean IoU over all slices with a reference object. In each slice, the area covered by the predicted boxes
      is compared with the area covered by the boxes of the reference objects (connected components).
    - ``slices``: number of these slices.
    - ``false_positive_slices``: number of slices with predicted boxes but without a reference object.

    Expects the data described in ``EvaluationReport``, and ``image`` in the batch as passed to the network. Does
    nothing for networks without RoIs. Attach this handler after ``EvaluationReport``, which writes the summary.

    Args:
        output_dir: receives the files.
        inferer: the evaluator's inferer.
        regions: label values of every region, in channel order.
        compare: whether label maps are available for comparison.
        ignore_label: value of voxels whose label is unknown; None for none.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        inferer: RoISliceInferer,
        regions: Mapping[str, Sequence[int]],
        compare: bool = False,
        ignore_label: int | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.inferer = inferer
        self.regions = regions
        self.compare = compare
        self.ignore_label = ignore_label
        self.has_rois = False
        self.ious: dict[str, list[float]] = {}
        self.false_positives: dict[str, int] = {}

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Clear the results of an earlier run."""
        self.has_rois = False
        self.ious = {name: [] for name in self.regions}
        self.false_positives = dict.fromkeys(self.regions, 0)

    def collect(self, engine: Engine) -> None:
        """Write the RoIs of each case in an iteration, and add the file to ``saved_files`` of the output."""
        if self.inferer.found is None:
            return
        self.has_rois = True
        self.output_dir.mkdir(parents=True, exist_ok=True)
        found, outputs = self.inferer.found.numpy(), engine.state.output
        for number, batch in enumerate(cast(list, engine.state.batch)):
            image = batch["image"]
            own, shown = np.asarray(image.meta["original_affine"], float), np.asarray(image.affine.cpu(), float)
            to_own = np.linalg.inv(own) @ shown
            axis = int(np.abs(to_own[:3, self.inferer.axis]).argmax())
            rois = [self._roi(row[1:], to_own, own, axis) for row in found[found[:, 0] == number]]
            name = batch.get("case") or Path(image.meta["filename_or_obj"]).name.split(".")[0]
            content = {
                "case": name,
                "_desc_": "bounds: continuous voxel indices of the input, 0 is the outer edge of the first; mm: RAS+",
                "rois": rois,
            }
            file = self.output_dir / f"{name}_rois.json"
            write_json(file, content)
            output: dict[str, Any] = outputs[number] if isinstance(outputs, list) and number < len(outputs) else {}
            output["saved_files"] = [*output.get("saved_files", ()), str(file)]
            if self.compare:
                listed = batch.get("labelled_regions", self.regions)
                self._compare(rois, batch["label"][0].cpu().numpy(), axis, listed)

    def write(self, engine: Engine) -> None:
        """Add the mean IoU over all processes to the summary, on rank 0."""
        file = self.output_dir / "summary.json"
        if not self.compare:
            return
        # of all processes, whatever their last case was; a process without cases has not started
        parts = gather_objects((self.has_rois, self.ious, self.false_positives))
        if idist.get_rank() > 0 or not any(has_rois for has_rois, *_ in parts) or not file.is_file():
            return
        summary = json.loads(file.read_text(encoding="utf-8"))
        for name in self.regions:
            ious = [iou for _, of_process, _ in parts for iou in of_process.get(name, ())]
            if not ious:  # no slice contains the region
                continue
            summary["regions"][name]["roi_iou"] = {
                "mean": math.fsum(ious) / len(ious),
                "slices": len(ious),
                "false_positive_slices": sum(of_process.get(name, 0) for *_, of_process in parts),
            }
        write_summary(file, summary)

    def _roi(self, row: NDArray, to_own: NDArray, own: NDArray, axis: int) -> dict[str, Any]:
        """Convert one RoI to the grid of the input file."""
        index, channel, score, left, top, right, bottom = map(float, row)
        corners = np.array([[top, left], [bottom, right]]) - 0.5
        corners = np.insert(corners, self.inferer.axis, [index - 0.5, index + 0.5], axis=1)
        voxels = np.c_[corners, np.ones(2)] @ to_own.T
        lower, upper = voxels[:, :3].min(0), voxels[:, :3].max(0)
        return {
            "region": list(self.regions)[int(channel)],
            "score": round(score, 4),
            "slice": int(np.round((lower + upper)[axis] / 2)),
            "lower": np.round(lower + 0.5, 3).tolist(),
            "upper": np.round(upper + 0.5, 3).tolist(),
            "corners_mm": np.round((voxels @ own.T)[:, :3], 3).tolist(),
        }

    def _compare(self, rois: list[dict[str, Any]], label: NDArray, axis: int, labelled: Collection[str]) -> None:
        in_plane = [other for other in range(3) if other != axis]
        known = np.flatnonzero((label != self.ignore_label).all(tuple(in_plane)))
        for name in (name for name in self.regions if name in labelled):
            truth = np.moveaxis(np.isin(label, list(self.regions[name])), axis, 0)
            of_slice: dict[int, list[list[float]]] = {}
            for roi in rois:
                if roi["region"] == name:
                    (y0, x0), (y1, x1) = ([roi[side][other] for other in in_plane] for side in ("lower", "upper"))
                    of_slice.setdefault(roi["slice"], []).append([x0, y0, x1, y1])
            for index, mask in zip(known.tolist(), truth[known], strict=True):
                found = np.array(of_slice.get(index, []), float).reshape(-1, 4)
                if mask.any():
                    self.ious[name].append(boxes_iou(found, object_boxes(mask)))
                else:
                    self.false_positives[name] += bool(len(found))
