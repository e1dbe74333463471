# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Figure of normalization results: input, normalized image, reference and prediction, one row per domain."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from numpy.typing import NDArray

from segan_monai.pictures.overlay_picture import black_figure, content_box, show_plane, to_ras
from segan_monai.processes import gather_objects

COLUMNS = ("input", "normalized", "reference", "prediction")


class NormalizationPanel:
    """Handler that draws the first case of every domain of an evaluation as a PNG: Delisle et al. (2020), Fig. 3.

    It shows the axial slice with the largest reference area in radiological orientation: anterior up, the patient's
    right on the left. All normalized images share one grey scale; each input is scaled to its range.

    Requires the batch and output of ``NormalizationReport``, and a label map ``pred`` (1, H, W, D) in the output.

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
        self.file = Path(file)
        self.regions = regions
        self.prediction_regions = prediction_regions
        self.rows: dict[str, dict[str, Any]] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def collect(self, engine: Engine) -> None:
        """Collect one slice of the first case of each domain."""
        for batch, output in zip(cast(list, engine.state.batch), cast(list, engine.state.output), strict=True):
            domain = batch.get("domain", "")
            if domain in self.rows:
                continue
            volumes = {"reference": batch["label"], "prediction": output["pred"]}
            volumes |= {name: output[name] for name in ("input", "normalized")}
            turned = {name: to_ras(volume) for name, volume in volumes.items()}
            planes = {name: volume[0] for name, (volume, _) in turned.items()}
            spacing = turned["input"][1]
            maps = {
                "reference": _ranks(planes["reference"], self.regions),
                "prediction": _ranks(planes["prediction"], self.prediction_regions),
            }
            z = int((maps["reference"] > 0).sum((0, 1)).argmax())
            shown = content_box(planes["input"][None, ..., z])
            self.rows[domain] = {name: planes[name][..., z][shown].copy() for name in ("input", "normalized")}
            self.rows[domain] |= {name: ranks[..., z][shown].copy() for name, ranks in maps.items()}
            self.rows[domain] |= {"case": batch["case"], "aspect": spacing[1] / spacing[0]}

    def draw(self, engine: Engine) -> None:
        """Write the figure, on rank 0 only."""
        for of_process in gather_objects(self.rows):
            self.rows = {**of_process, **self.rows}
        if not self.rows or idist.get_rank() > 0:
            return
        size = (11, 2.9 * len(self.rows) + 0.6)
        figure, axes = black_figure(len(self.rows), len(COLUMNS), size)
        together = np.concatenate([row["normalized"].ravel() for row in self.rows.values()])
        for line, (domain, row) in zip(axes, sorted(self.rows.items()), strict=True):
            draw_normalization(line, f"{domain} {row['case']}", row, list(self.regions), together)
        region_legend(figure, list(self.regions))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.file, dpi=120)


def draw_normalization(
    axes: NDArray[Any], title: str, row: Mapping[str, Any], regions: Sequence[str], grey_of: NDArray[Any]
) -> None:
    """Draw input, normalized image, reference and prediction.

    Args:
        axes: four panels.
        title: title of the first panel.
        row: ``input`` and ``normalized`` (X, Y); ``reference`` and ``prediction`` (X, Y), the position of the region
            from 1, 0 for none; ``aspect``.
        regions: names of the regions.
        grey_of: normalized intensities whose 0.5 and 99.5 percentiles set the grey scale of the normalized image.
    """
    from matplotlib.colors import BoundaryNorm, ListedColormap

    palette = _palette(len(regions))
    labels = {"cmap": ListedColormap(palette), "norm": BoundaryNorm(np.arange(len(palette) + 1) - 0.5, len(palette))}
    low, high = np.percentile(grey_of, [0.5, 99.5])
    for axis, name in zip(axes, COLUMNS, strict=True):
        style = labels if name in ("reference", "prediction") else {}
        if name == "normalized":
            style = {"vmin": low, "vmax": high}
        show_plane(axis, row[name], row["aspect"], **style)
        axis.set_title(f"{title}: {name}" if name == "input" else name, color="white", fontsize=9)


def region_legend(figure: Any, regions: Sequence[str]) -> None:
    """Add a legend of the region colours below the panels."""
    from matplotlib.patches import Patch

    patches = [
        Patch(color=colour, label=name) for colour, name in zip(_palette(len(regions))[1:], regions, strict=False)
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=9, labelcolor="white",
                  facecolor="black", edgecolor="black")  # fmt: skip


def _palette(regions: int) -> list[str]:
    return ["black", *(f"C{index}" for index in (0, 1, 2, 3, 4, 6, 8, 9))][: 1 + regions]


def _ranks(label: NDArray[Any], regions: Mapping[str, Sequence[int]]) -> NDArray[np.int64]:
    """Return the position of each voxel's region, from 1; 0 for none."""
    ranks = np.zeros(label.shape, np.int64)
    for rank, values in enumerate(regions.values(), start=1):
        ranks[np.isin(label, list(values))] = rank
    return ranks
