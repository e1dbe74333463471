# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes the report of a run when it ends."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events

from segan_monai.report import write_report

logger = logging.getLogger(__name__)


class RunReport:
    """Writes ``report.html`` into the folder of a training or an evaluation, see `write_report`.

    Attach it after the handlers that write what it shows. A page that cannot be written is said in the log and costs
    nothing else of the run.

    Args:
        output_dir: the run's folder.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.output_dir = Path(output_dir)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer or an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Write the page; of several processes the first one does."""
        if idist.get_rank() > 0:
            return
        try:
            logger.info("report: %s", write_report([self.output_dir]))
        except Exception:  # whatever it is, days of training must not end with it
            logger.exception("the report of %s could not be written; the run itself is whole", self.output_dir)
