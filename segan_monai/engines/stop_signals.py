# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Graceful shutdown on SIGINT and SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any


class StopSignals:
    """Context manager that records the first SIGINT (Ctrl-C) or SIGTERM; a second one ends the process immediately.

    - Loader processes forked inside the block inherit the handler. Ctrl-C in a terminal reaches all of them, and they
      must survive until the run has finished its iteration.
    - Signals that the process ignores from the start (nohup) stay ignored.
    - Outside the main thread, where Python cannot install signal handlers, it does nothing.

    Attributes:
        received: number of the signal, 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0
        self.before: dict[int, Any] = {}
        self.process = os.getpid()

    def __enter__(self) -> StopSignals:
        """Install the handlers."""
        self.received, self.process = 0, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the previous handlers."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for known in self.before:
            signal.signal(known, signal.SIG_DFL)
        if os.getpid() == self.process:
            name = signal.Signals(number).name
            text = f"\n{name}: stopping after this iteration, with a checkpoint; repeat to stop immediately\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())  # print is not reentrant
