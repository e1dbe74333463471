# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation of every case, written to ``metrics.csv`` and ``summary.json``."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.utils import ensure_tuple

from segan_monai.errors import DataError
from segan_monai.metrics.evaluation import evaluate_case
from segan_monai.metrics.label_maps import LabelMap, label_map
from segan_monai.metrics.summary import (
    Regions,
    evaluation_table,
    format_table,
    listed,
    remove_evaluation,
    write_evaluation,
)
from segan_monai.processes import gather_objects
from segan_monai.trained import cases_of_region_rules

logger = logging.getLogger(__name__)


class EvaluationReport:
    """Evaluates the cases of an evaluator, with the same results as ``evaluate_folders`` on its files.

    After each iteration, ``engine.state.batch`` must be a list (decollated) of dictionaries with

    - ``case``: name of the case,
    - ``label``: ``MetaTensor`` of shape ``(1, H, W[, D])``, the label map with the values and the grid of its file,
    - ``labelled_regions``: names of the regions that the label map holds; absent if it holds all;

    and ``engine.state.output`` a list of dictionaries with

    - ``pred``: integer ``MetaTensor`` of the same shape and affine, the predicted label map after postprocessing
      (``Invertd``, regions merged into one label map). It receives ``dice``, by labelled region.

    At the end, the rows of all processes are gathered, and rank 0 writes ``metrics.csv`` and ``summary.json`` and logs
    the table. Cases that a ``CaseEvaluator`` could not read or segment are in no mean; ``summary.json`` lists them with
    the reasons as ``not_evaluated``. Each run of the evaluator overwrites the files; if no case could be evaluated, it
    removes them. Attach this handler before ``QualitySignals``, which records the digest of ``metrics.csv``.

    Args:
        output_dir: folder for the results; created if missing.
        regions: label values of every region, such as ``{"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}``.
        prediction_regions: label values of every region in the predictions, if they differ.
        spacing_known: False for photographs, whose affine is in pixels. Distances and volumes are then empty, except
            for the zeros and infinities of empty masks.
        rules_of: the weights, or those of each member, whose ``region_rules`` are applied; None without rules. If they
            were chosen on evaluated cases, ``summary.json`` names these and the log says so, because their Dice
            is too high.
        ignore_label: value of voxels whose label is unknown, see ``evaluate_case``; None for none.

    Raises:
        DataError: When the engine runs: batch or output has another form, a case occurs twice, its grids differ, or it
            contains label values outside the regions.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        regions: Regions,
        prediction_regions: Regions | None = None,
        spacing_known: bool = True,
        rules_of: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        ignore_label: int | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.regions = regions
        self.prediction_regions = prediction_regions
        self.spacing_known = spacing_known
        self.rules_of = ensure_tuple(() if rules_of is None else rules_of)
        self.ignore_label = ignore_label
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Clear the rows of an earlier run."""
        self.rows = {}

    def collect(self, engine: Engine) -> None:
        """Evaluate the cases of one iteration."""
        if not isinstance(engine.state.batch, list) or not isinstance(engine.state.output, list):
            raise DataError(
                "EvaluationReport needs decollated data: pass decollate=True and postprocessing to the evaluator"
            )
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            case = batch["case"]
            if case in self.rows:
                raise DataError(f"case {case} occurs twice in one run; expected distinct case names")
            prediction = _on_grid(f"prediction of case {case}", output["pred"])
            reference = _on_grid(f"reference of case {case}", batch["label"])
            self.rows[case] = evaluate_case(
                case,
                prediction,
                reference,
                self.regions,
                self.prediction_regions,
                self.spacing_known,
                self.ignore_label,
                batch.get("labelled_regions"),
            )
            output["dice"] = {row["region"]: row["dice"] for row in self.rows[case]}

    def write(self, engine: Engine) -> None:
        """Write the files and log the table."""
        parts = gather_objects(self.rows)
        rows = {case: of_case for of_process in parts for case, of_case in of_process.items()}
        if len(rows) < sum(map(len, parts)):
            twice = next(case for case in sorted(rows) if sum(case in of_process for of_process in parts) > 1)
            raise DataError(f"case {twice} occurs in two processes; expected distinct names, each in one process")
        failed = gather_objects(getattr(engine, "failures", {}))
        failures = {case: text for of_process in failed for case, text in sorted(of_process.items())}
        if idist.get_rank() > 0:
            return
        if not rows:
            remove_evaluation(self.output_dir)
            return
        table = evaluation_table(row for case in sorted(rows) for row in rows[case])
        seen = sorted({case for file in self.rules_of for case in cases_of_region_rules(file) if case in rows})
        write_evaluation(table, self.output_dir, self.regions, self.prediction_regions, failures, seen)
        note = f"\nnot evaluated, and in no mean: {listed(failures)}" if failures else ""
        if seen:
            note += f"\nregion_rules were chosen on {len(seen)} of these cases, whose Dice is therefore too high"
        logger.info("evaluation written to %s\n%s%s", self.output_dir, format_table(table), note)


def _on_grid(name: str, tensor: torch.Tensor) -> LabelMap:
    """Convert a tensor of shape ``(1, H, W[, D])`` to a label map."""
    if not isinstance(tensor, MetaTensor):
        raise DataError(f"{name} is a {type(tensor).__name__}; expected a MetaTensor, which has an affine (mm)")
    if tensor.shape[0] != 1:
        raise DataError(
            f"{name} has shape {tuple(tensor.shape)}; expected (1, H, W[, D]): merge the regions into one label map"
        )
    return label_map(name, tensor[0].detach().cpu().numpy(), to_affine_nd(3, tensor.affine.cpu().numpy()))
