# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Parallel map over cases with worker processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import parent_process
from typing import TypeVar

from segan_monai.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

MOST_PROCESSES = 8
"""Default upper limit: more processes wait for the disk, and each needs memory."""


def available_processes(tasks: int, wanted: int | None = None) -> int:
    """Return the number of processes to start: ``wanted`` (default: CPU cores, at most 8), but at most ``tasks``."""
    if wanted is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        wanted = min(cores, MOST_PROCESSES)
    return max(1, min(wanted, tasks))


def map_in_processes(
    function: Callable[[T], R],
    items: Sequence[T],
    processes: int,
    option: str = "--processes",
    chunksize: int = 1,
    in_order: bool = True,
) -> Iterator[R]:
    """Apply a function to every item in worker processes, or in this process if ``processes`` is 1.

    Processes are used because most of the work holds the GIL, so threads would not run it in parallel.

    Args:
        function: a picklable function.
        items: its arguments.
        processes: number of processes, see ``available_processes``.
        option: command line option that the error message names when a process is killed.
        chunksize: number of items sent to a process at once.
        in_order: yield results in the order of the items; otherwise as soon as each is ready.

    Yields:
        The results.

    Raises:
        DataError: A process was killed.
    """
    if processes <= 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(processes, initializer=_start_process)
    try:
        if in_order:
            yield from pool.map(function, items, chunksize=chunksize)
        else:
            for future in as_completed([pool.submit(function, item) for item in items]):
                yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            f"one of {processes} processes was killed, probably because the machine ran out of memory. Run the same "
            f"command with a smaller {option}."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_process() -> None:
    """Set up a worker: one thread, SIGINT ignored so that the current case completes, exit when the parent exits."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    with suppress(ImportError):  # NIfTI needs no SimpleITK
        import SimpleITK as sitk  # noqa: N813

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
