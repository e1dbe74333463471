# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Evaluates every case of an evaluator's run and writes `metrics.csv` and `summary.json`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd

from segan_monai.errors import DataError
from segan_monai.metrics.evaluation import evaluate_case
from segan_monai.metrics.label_maps import LabelMap, label_map
from segan_monai.metrics.summary import COLUMNS, Regions, format_table, write_evaluation
from segan_monai.processes import gather_objects

logger = logging.getLogger(__name__)


class EvaluationReport:
    """Writes the evaluation of a `SupervisedEvaluator`'s run, the same as `evaluate_folders` gives for its files.

    After each iteration, decollated, `engine.state.batch` must be a list of dictionaries with

    - `case`: name of the case,
    - `label`: `MetaTensor` of shape `(1, H, W[, D])`, the label map as it is on disk: its own values, its own grid;

    and `engine.state.output` a list of dictionaries with

    - `pred`: `MetaTensor` of the same shape and affine, integers: the predicted label map after postprocessing
      (`Invertd`, regions merged into one label map).

    At the end the rows of all processes are gathered; the first process writes `metrics.csv` and `summary.json` and
    logs the table. Every run starts anew, so a validator that runs every epoch leaves the files of its last run.

    Args:
        output_dir: folder of the results, made if missing.
        regions: label values of every region, such as `{"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}`.
        prediction_regions: the same for the predictions, where their convention differs.
        spacing_known: False for photographs, whose affine is in pixels: distances and volumes are left empty, but for
            the zeros and infinities of empty masks.

    Raises:
        DataError: while the engine runs: the batch or the output is not as above, a case occurs twice, its two grids
            differ, or it holds label values outside the regions.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        regions: Regions,
        prediction_regions: Regions | None = None,
        spacing_known: bool = True,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.regions = regions
        self.prediction_regions = prediction_regions
        self.spacing_known = spacing_known
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def attach(self, engine: Engine) -> None:
        """Registers the handler with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Forgets the cases of an earlier run."""
        self.rows = {}

    def collect(self, engine: Engine) -> None:
        """Evaluates the cases of one iteration."""
        if not isinstance(engine.state.batch, list) or not isinstance(engine.state.output, list):
            raise DataError("EvaluationReport needs decollated data: give the evaluator decollate=True, postprocessing")
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            case = batch["case"]
            if case in self.rows:
                raise DataError(f"case {case} occurs twice in one run; expected case names that differ")
            prediction = _on_grid(f"prediction of case {case}", output["pred"])
            reference = _on_grid(f"reference of case {case}", batch["label"])
            self.rows[case] = evaluate_case(
                case, prediction, reference, self.regions, self.prediction_regions, self.spacing_known
            )

    def write(self, engine: Engine) -> None:
        """Writes the files and logs the table."""
        parts = gather_objects(self.rows)
        rows = {case: of_case for of_process in parts for case, of_case in of_process.items()}
        if len(rows) < sum(map(len, parts)):
            twice = next(case for case in sorted(rows) if sum(case in of_process for of_process in parts) > 1)
            raise DataError(f"case {twice} occurs in two processes; expected case names that differ, each case in one")
        if idist.get_rank() == 0 and rows:
            table = pd.DataFrame([row for case in sorted(rows) for row in rows[case]], columns=list(COLUMNS))
            write_evaluation(table, self.output_dir, self.regions, self.prediction_regions)
            logger.info("evaluation, written to %s\n%s", self.output_dir, format_table(table))


def _on_grid(name: str, tensor: torch.Tensor) -> LabelMap:
    """Makes a tensor of shape `(1, H, W[, D])` a label map."""
    if not isinstance(tensor, MetaTensor):
        raise DataError(f"{name} is a {type(tensor).__name__}; expected a MetaTensor, which knows its affine (mm)")
    if tensor.shape[0] != 1:
        raise DataError(
            f"{name} has shape {tuple(tensor.shape)}; expected (1, H, W[, D]): merge the regions into one label map"
        )
    return label_map(name, tensor[0].detach().cpu().numpy(), to_affine_nd(3, tensor.affine.cpu().numpy()))
