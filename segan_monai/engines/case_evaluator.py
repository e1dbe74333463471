# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Evaluator that continues after failed cases."""

from __future__ import annotations

import logging
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from monai.engines import SupervisedEvaluator

from segan_monai.errors import OutputError, UserError, causes, reason
from segan_monai.processes import gather_objects

logger = logging.getLogger(__name__)


class FailedCasesError(UserError):
    """Error for a run in which some cases failed; the results of all other cases are complete."""


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` that continues with the next case when one fails.

    A case fails if ``CaseDataset`` returns it with an error, or if the network or postprocessing raises one. Handlers
    then see an iteration with empty lists as batch and output. A result that cannot be written stops the run, because
    the next one could not be written either.

    Args:
        **settings: arguments of ``SupervisedEvaluator``. The loader yields batches of one case.

    Attributes:
        failures: error text by case name, for the cases of this process.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.failures: dict[str, str] = {}

    def run(self) -> None:
        """Run over all cases of this process, possibly none if all were finished in an earlier run.

        Raises:
            FailedCasesError: after the last case of all processes, if any case failed. It is raised on rank 0 only:
                torchrun would kill rank 0 before its message if another rank failed first.
            OutputError: if a result cannot be written.
        """
        self.failures = {}
        if self.state.epoch_length:
            super().run()
        else:
            self.fire_event(Events.COMPLETED)  # its handlers synchronize with the other processes
        parts = gather_objects((self.failures, self.state.epoch_length or 0))
        failures = {case: text for of_process, _ in parts for case, text in of_process.items()}
        if failures and idist.get_rank() == 0:
            lines = [f"{case}: {text}" for case, text in failures.items()]
            more = [f"and {len(lines) - 10} more, see the log"] if len(lines) > 10 else []
            count = sum(cases for _, cases in parts)
            raise FailedCasesError(
                f"{len(lines)} of {count} cases failed; the results of the others are complete. Fix these and run "
                "the same command again:\n  " + "\n  ".join(lines[:10] + more)
            )

    def _iteration(self, engine: CaseEvaluator, batchdata: dict[str, Any]) -> dict[str, Any] | list[Any]:
        """Run network and postprocessing on one case, or record why it failed."""
        (case,) = batchdata["case"]
        try:
            if "error" not in batchdata:
                return super()._iteration(engine, batchdata)
            (text,) = batchdata["error"]
        except Exception as error:
            if any(isinstance(link, OutputError) for link in causes(error)):
                raise
            text = reason(error)
        logger.error("case %s failed: %s", case, text)
        self.failures[case] = text
        engine.state.batch, engine.state.output = [], []
        return engine.state.output
