# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""State that each process of a training has of its own until the end of an epoch, such as running statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine

from segan_monai.processes import gather_objects


def states_of_processes(engine: Engine) -> list[dict[str, Any]]:
    """Return the states of a trainer's ``of_process`` in all processes, see ``PhasedTrainer``. All must call it."""
    return gather_objects({name: item.state_dict() for name, item in _of_process(engine).items()})


def load_state_of_process(engine: Engine, states: Sequence[Mapping[str, Any]]) -> None:
    """Restore the state of this process; one that had no part in the earlier run keeps that of the first process."""
    if idist.get_rank() >= len(states):
        return
    own = states[idist.get_rank()]
    for name, item in _of_process(engine).items():
        if name in own:
            item.load_state_dict(own[name])


def _of_process(engine: Engine) -> Mapping[str, Any]:
    return getattr(engine, "of_process", {})
