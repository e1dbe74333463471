# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Apply a function to many cases in several processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import parent_process
from typing import TypeVar

from segan_monai.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

MOST_PROCESSES = 8
"""More of them wait for the disk, and each takes memory."""


def available_processes(tasks: int, wanted: int | None = None) -> int:
    """Return how many processes to start for so many tasks: `wanted`, by default the processor cores, at most 8."""
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
    """Apply a function to every item; one process means this one.

    Args:
        function: a function that can be pickled; threads would gain nothing, most work holds the interpreter's lock.
        items: its arguments.
        processes: how many to start, see `available_processes`.
        option: command line option to name when a process is killed.
        chunksize: items sent to a process at once.
        in_order: whether results come in the order of the items; if not, each comes as soon as it is ready.

    Yields:
        The results.

    Raises:
        DataError: a process was killed.
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
            f"one of {processes} processes was killed, most likely because the machine ran out of memory. Run the same "
            f"command with a smaller {option}."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_process() -> None:
    """Use one thread, leave Ctrl-C to the main process so that no case ends half done, and end with that process."""
    import SimpleITK as sitk  # noqa: N813
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
