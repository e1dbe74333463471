# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Report of normalization: histograms by tissue and domain, divergence between domains, change of the images."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from segan_monai.json_files import read_json_object, write_json
from segan_monai.metrics.image_change import structural_similarity, total_variation
from segan_monai.metrics.jensen_shannon import IntensityHistograms
from segan_monai.metrics.summary import dice_of_domains, read_metrics
from segan_monai.processes import gather_objects

logger = logging.getLogger(__name__)

STAGES = ("input", "normalized")
FIGURES = ("ssim_to_input", "total_variation_input", "total_variation_normalized")
WHOLE = "whole image"


class NormalizationReport:
    """Writes ``normalization.json`` and ``histograms.png`` (Delisle et al. (2020), Table 2 and Fig. 4).

    ``normalization.json`` contains the Jensen-Shannon divergence between the domains' intensities in nats (0 to
    log K). It is given for inputs and normalized images, over the whole image and within each region. It also has the
    structural similarity of the normalized images to their inputs, and the total variation of both, for each case and
    as the mean of each domain (see ``segan_monai.metrics.image_change``). If there are ``metrics.csv`` and
    ``summary.json``, the latter gets these means, and the mean Dice of each domain and region: attach this handler
    after ``EvaluationReport``.

    ``histograms.png`` has one row each for inputs and normalized images, one column per region and one histogram per
    domain.

    Expects decollated data: ``label`` (1, H, W, D) and ``domain`` in the batch, and ``input`` and ``normalized``
    (C, H, W, D) on the label's grid in the output. Background voxels (value 0) are excluded.

    Args:
        output_dir: receives both files.
        regions: label values of every region.
        domains: names of the domains.
        bins: number of histogram bins over the common range of all domains.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        regions: Mapping[str, Sequence[int]],
        domains: Sequence[str],
        bins: int = 64,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.regions = {WHOLE: [], **regions}
        self.domains = list(domains)
        self.bins = bins
        self.start()

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda: self.start())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self) -> None:
        """Clear the histograms of an earlier run."""
        self.found = {stage: {name: IntensityHistograms(self.domains) for name in self.regions} for stage in STAGES}
        self.changes: dict[str, dict[str, Any]] = {}

    def collect(self, engine: Engine) -> None:
        """Add the voxels of an iteration's cases to the histograms."""
        for batch, output in zip(cast(list, engine.state.batch), cast(list, engine.state.output), strict=True):
            domain = batch.get("domain", self.domains[0])
            label = torch.as_tensor(batch["label"])[0]
            self.changes[batch["case"]] = _change(domain, output)
            for name, values in self.regions.items():
                mask = torch.isin(label, torch.tensor(list(values), dtype=label.dtype)) if values else None
                for stage in STAGES:
                    image = torch.as_tensor(output[stage]).cpu()
                    self.found[stage][name].add(image if mask is None else image[:, mask.cpu()], domain)

    def write(self, engine: Engine) -> None:
        """Combine the histograms of all processes and write both files, on rank 0."""
        for by_region in self.found.values():
            for histograms in by_region.values():
                histograms.counts = torch.stack(gather_objects(histograms.counts)).sum(dim=0)
        changes = {case: change for of_process in gather_objects(self.changes) for case, change in of_process.items()}
        if idist.get_rank() > 0 or not self.found["input"][WHOLE].counts.any():  # no case could be read
            return
        record: dict[str, Any] = {
            "domains": self.domains,
            "bins": self.bins,
            "jensen_shannon_divergence_nats": {
                stage: {name: found.divergence(self.bins) for name, found in by_region.items()}
                for stage, by_region in self.found.items()
            },
            "change": self._by_domain(changes),
            "cases": {case: changes[case] for case in sorted(changes)},
        }
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_json(self.output_dir / "normalization.json", record, allow_nan=False)
        if (summary := self.output_dir / "summary.json").is_file():
            metrics = read_metrics(self.output_dir)
            dice = dice_of_domains(metrics, {case: change["domain"] for case, change in changes.items()})
            of_domains = {"normalization": record["change"], "dice_of_domains": dice}
            write_json(summary, {**read_json_object(summary), **of_domains}, allow_nan=False)
            for domain, of_domain in dice.items():
                means = ", ".join(f"{region} {value:.3f}" for region, value in of_domain.items())
                logger.info("Dice of %s: %s", domain, means)
        for domain, change in record["change"].items():
            found = ", ".join(f"{name} {value:.3f}" for name, value in change.items() if value is not None)
            logger.info("normalization of %s: %s", domain, found)
        self.draw(record["jensen_shannon_divergence_nats"])

    def _by_domain(self, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
        """Return the mean of each figure over the cases of each domain; None where no case has it."""
        means: dict[str, dict[str, float | None]] = {}
        for domain in self.domains:
            of_domain = [changes[case] for case in sorted(changes) if changes[case]["domain"] == domain]
            for name in FIGURES if of_domain else ():
                values = [change[name] for change in of_domain if change[name] is not None]
                means.setdefault(domain, {})[name] = math.fsum(values) / len(values) if values else None
        return means

    def draw(self, divergence: dict[str, dict[str, float]]) -> None:
        """Write ``histograms.png``."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3.2 * len(self.regions), 5.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(STAGES), len(self.regions), squeeze=False)
        for line, stage in zip(axes, STAGES, strict=True):
            edges, _ = self.found[stage][WHOLE].histograms(self.bins)
            for axis, (name, found) in zip(line, self.found[stage].items(), strict=True):
                own_edges, frequencies = found.histograms(self.bins)
                width = float(own_edges[1] - own_edges[0])
                for domain, of_domain in zip(self.domains, frequencies, strict=True):
                    if of_domain.any():  # the outer bins contain all values beyond the range and would be spikes
                        density, inner = (of_domain / width)[1:-1].numpy(), own_edges[1:-1].numpy()
                        axis.stairs(density, inner, label=domain, fill=True, alpha=0.45)
                axis.set_xlim(float(edges[0]), float(edges[-1]))
                axis.set_yticks([])
                axis.set_title(f"{stage}: {name}\nJSD {divergence[stage][name]:.3f}", fontsize=9)
                axis.tick_params(labelsize=7)
                axis.set_xlabel("intensity", fontsize=7)
        axes[0][0].legend(fontsize=8)
        figure.savefig(self.output_dir / "histograms.png", dpi=120)


def _change(domain: str, output: Mapping[str, Any]) -> dict[str, Any]:
    """Return the domain and the figures of a case; None for those that are undefined."""
    original, normalized = (torch.as_tensor(output[stage]).as_subclass(torch.Tensor).cpu() for stage in STAGES)
    inside = original != 0
    values = (
        structural_similarity(normalized, original),
        total_variation(original, inside),
        total_variation(normalized, inside),
    )
    figures = {name: None if math.isnan(value) else value for name, value in zip(FIGURES, values, strict=True)}
    return {"domain": domain, **figures}
