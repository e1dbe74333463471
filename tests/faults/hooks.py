# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Handlers that bring a fault about, or wait, at an iteration that the test chooses."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

from ignite.engine import Engine, Events


class SignalAt:
    """Sends signals when an iteration starts.

    Args:
        iteration: counted over all epochs, from 1.
        signals: their names.
        to: ``self``; ``group``, with the loader processes, as a terminal does on Ctrl-C; ``loader``, one of these.
    """

    def __init__(self, iteration: int, signals: list[str], to: str = "self") -> None:
        self.iteration = iteration
        self.signals = signals
        self.to = to

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED(once=self.iteration), self.send)

    def send(self) -> None:
        process = multiprocessing.active_children()[0].pid if self.to == "loader" else os.getpid()
        for name in self.signals:
            (os.killpg if self.to == "group" else os.kill)(process, getattr(signal, name))
        if self.to == "loader":  # until it is gone: it may not be noticed any more at the end of the epoch
            os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)


class WaitFor:
    """Waits, when an iteration starts, until a named pipe has been opened by the test and closed again.

    Args:
        pipe: its path.
        iteration: counted over all epochs, from 1.
    """

    def __init__(self, pipe: str, iteration: int) -> None:
        self.pipe = pipe
        self.iteration = iteration

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED(once=self.iteration), self.wait)

    def wait(self) -> None:
        Path(self.pipe).read_text(encoding="utf-8")
