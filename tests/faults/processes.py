# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command line in processes that may be killed, forked from one that has imported everything and run nothing."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.bundles.workflow import BUNDLES, FILES, HIPPOCAMPUS
from tests.forked import SERVER

SECONDS = 120  # far more than anything here takes; a bound, not a measure
SMALL = {"device": "cpu", "base_channels": 4, "slice_size": [16, 16]}
SMALL_TRAINING = {**SMALL, "folds": 4, "batch_size": 2, "slices_per_volume": 2, "epochs": 3, "val_interval": 2}


def _run(arguments: list[str], log: Path, file_size_limit: int | None) -> None:
    """What `python -m monai.bundle` does, with its output in a file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job would ignore
    os.setpgrp()  # signals to the group are for this run and its loader processes alone
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if file_size_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as in a run that a shell starts
    sys.argv = ["monai.bundle", *arguments]
    try:
        runpy.run_module("monai.bundle", run_name="__main__")
    except Exception:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None


class Command:
    """A run of a bundle in a process of its own.

    Args:
        run_id: ``training``, ``evaluating`` or ``inference``; any other word is typed for ``training``.
        folder: for the log and the overlay.
        handlers: more handlers, such as those in `tests.faults.hooks`.
        file_size_limit: no file may get larger than so many bytes: the disk is full for it.
        **overrides: keys of the config.
    """

    def __init__(self, run_id, folder, handlers=(), file_size_limit=None, **overrides):
        number = len(list(folder.glob("overlay_*.json")))
        overlay, self.log = folder / f"overlay_{number}.json", folder / f"log_{number}.txt"
        config_file = FILES.get(run_id, "train.json")
        where = "+train#handlers" if config_file == "train.json" else "+handlers"
        small = SMALL_TRAINING if config_file == "train.json" else SMALL
        overlay.write_text(json.dumps({**small, **overrides, where: list(handlers)}, default=str), encoding="utf-8")
        files = [str(BUNDLES / HIPPOCAMPUS / "configs" / config_file), str(overlay)]
        arguments = ["run", run_id, "--config_file", str(files)]
        self.process = SERVER.Process(target=_run, args=(arguments, self.log, file_size_limit))
        self.process.start()

    def wait(self) -> int:
        """Its exit status: negative if a signal killed it."""
        self.process.join(SECONDS)
        if self.process.exitcode is None:
            self.kill()
            raise AssertionError(f"it hangs:\n{self.text}")
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(SECONDS)

    def kill_while_it_writes(self, pipe: Path) -> None:
        """Wait until it holds a file open for writing, where it can write nothing; then kill it.

        Args:
            pipe: a named pipe in the place of the file; it is filled here, and removed at the end.
        """
        both_ends = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        try:
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(both_ends, bytes(65536))
            end = time.monotonic() + SECONDS
            while not self._holds(pipe):
                assert self.process.is_alive(), f"it ended before it wrote:\n{self.text}"
                assert time.monotonic() < end, f"it never wrote {pipe}:\n{self.text}"
                time.sleep(0.02)
            self.kill()
        finally:
            os.close(both_ends)
            pipe.unlink()

    @contextlib.contextmanager
    def waiting_for(self, pipe: Path) -> Iterator[None]:
        """Wait until it reads from a named pipe, and let it wait there inside the block."""
        descriptor, end = None, time.monotonic() + SECONDS
        while descriptor is None:
            assert self.process.is_alive(), f"it ended before it read:\n{self.text}"
            assert time.monotonic() < end, f"it never read {pipe}:\n{self.text}"
            with contextlib.suppress(OSError):  # nobody reads yet
                descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.02)
        try:
            yield
        finally:
            os.close(descriptor)

    def _holds(self, file: Path) -> bool:
        """Whether the process has the file open."""
        for descriptor in Path(f"/proc/{self.process.pid}/fd").glob("*"):
            with contextlib.suppress(OSError):  # closed meanwhile
                if descriptor.readlink() == file:
                    return True
        return False

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.log.read_text(encoding="utf-8", errors="backslashreplace") if self.log.is_file() else ""

    @property
    def last_line(self) -> str:
        """The last thing the user reads."""
        return self.text.strip().splitlines()[-1]
