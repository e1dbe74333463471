# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM as a wish that a long run fulfils at the next good moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any


class StopSignals:
    """Inside its block the first SIGINT (Ctrl-C) or SIGTERM is only noted; one more ends the process at once.

    Loader processes that are forked inside the block inherit this, so a Ctrl-C in a terminal, which reaches them all,
    does not take the loader away from the run that still has to end its iteration. A signal that the process was
    started to ignore (nohup) stays ignored. Outside the main thread, where Python takes no signals, it does nothing.

    Attributes:
        received: number of the signal, 0 if there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self.before: dict[int, Any] = {}
        self.process = os.getpid()

    def __enter__(self) -> StopSignals:
        """Begin to listen."""
        self.received, self.process = 0, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        """Let signals do what they did before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for known in self.before:
            signal.signal(known, signal.SIG_DFL)
        if os.getpid() == self.process:
            name = signal.Signals(number).name
            text = f"\n{name}: stopping after this iteration, with a checkpoint; once more stops at once\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())  # a print may be under way
