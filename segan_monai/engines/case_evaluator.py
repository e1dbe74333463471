# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Inference over many cases, of which some may be bad."""

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
    """Some cases failed; all others have their results."""


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's `SupervisedEvaluator` that goes on with the next case when one fails.

    A case fails if it comes from `CaseDataset` with an error, or if network or postprocessing raise one; handlers then
    see an iteration with empty lists as batch and output. Results that cannot be written stop the run: the next case
    would not fare better.

    Args:
        **settings: of `SupervisedEvaluator`. The loader has batches of one case.

    Attributes:
        failures: name of the case to what is wrong with it, of the cases of this process.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.failures: dict[str, str] = {}

    def run(self) -> None:
        """Run over all cases of this process; none are left if all have been finished before.

        Raises:
            FailedCasesError: after the last case of all processes, if any failed; in the first process alone, which
                torchrun would not let say it once another one had ended with an error.
            OutputError: a result cannot be written.
        """
        self.failures = {}
        if self.state.epoch_length:
            super().run()
        else:
            self.fire_event(Events.COMPLETED)  # handlers that meet those of the other processes
        parts = gather_objects((self.failures, self.state.epoch_length or 0))
        failures = {case: text for of_process, _ in parts for case, text in of_process.items()}
        if failures and idist.get_rank() == 0:
            lines = [f"{case}: {text}" for case, text in failures.items()]
            more = [f"and {len(lines) - 10} more, see the log"] if len(lines) > 10 else []
            count = sum(cases for _, cases in parts)
            raise FailedCasesError(
                f"{len(lines)} of {count} cases failed; the others have their results. Mend these "
                "and give the same command again, finished cases are not repeated:\n  " + "\n  ".join(lines[:10] + more)
            )

    def _iteration(self, engine: CaseEvaluator, batchdata: dict[str, Any]) -> dict[str, Any] | list[Any]:
        """Run one case through network and postprocessing, or note why that was not possible."""
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
