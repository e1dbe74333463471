# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""HTML report at the end of a run."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events

from segan_monai.errors import UserError
from segan_monai.processes import any_rank
from segan_monai.report import NoResultsError, write_report

logger = logging.getLogger(__name__)


class RunReport:
    """Writes ``report.html`` to the folder of a training or evaluation run, see ``write_report``.

    Attach it after the handlers whose files it shows. If the page cannot be written, the error is logged and the run
    continues. Without results because cases failed, nothing is logged: a ``CaseEvaluator`` ends with an error that
    names them.

    Args:
        output_dir: the run's folder.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.output_dir = Path(output_dir)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer or an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Write the page, on rank 0."""
        some_failed = any_rank(bool(getattr(engine, "failures", ())))
        if idist.get_rank() > 0:
            return
        try:
            logger.info("report: %s", write_report([self.output_dir]))
        except UserError as error:
            if not (some_failed and isinstance(error, NoResultsError)):
                logger.error("no report: %s", error)
        except Exception:  # an error in the report must not fail days of training
            logger.exception("the report of %s cannot be written; the run itself is complete", self.output_dir)
