# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Base class of handlers that collect a value per case of an evaluation and write them at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import ignite.distributed as idist
from ignite.engine import Engine, Events

from segan_monai.processes import gather_objects

T = TypeVar("T")


class PerCase(ABC, Generic[T]):
    """Collects ``of_case`` of every case, and passes those of all processes to ``write`` on rank 0.

    Expects decollated data with ``case``, the name, in the batch. Each run of the evaluator begins anew.
    """

    def __init__(self) -> None:
        self.found: dict[str, T] = {}

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda: self.found.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def collect(self, engine: Engine) -> None:
        """Keep what belongs to the cases of one iteration."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for case, result in zip(batch, output, strict=True):
            self.found[case["case"]] = self.of_case(case, result)

    def finish(self) -> None:
        """Gather the cases of all processes, and write them on rank 0."""
        parts = gather_objects(self.found)
        if idist.get_rank() == 0:
            found = {name: value for part in parts for name, value in part.items()}
            self.write({name: found[name] for name in sorted(found)})

    @abstractmethod
    def of_case(self, case: Mapping[str, Any], result: Mapping[str, Any]) -> T:
        """Return what to keep of a case.

        Args:
            case: its part of the batch.
            result: its output, after the post-processing.
        """

    @abstractmethod
    def write(self, found: Mapping[str, T]) -> None:
        """Write what was kept, by name in alphabetical order; empty if no case could be evaluated."""
