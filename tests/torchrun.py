# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Start processes that train or evaluate together, on the CPU of this machine."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.forked import become, run_python

RESTARTS = "TEST_MAX_RESTARTS"
TOP = Path(__file__).parents[1]


def torchrun_in_forks(*arguments: object, max_restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Do what ``torchrun`` does, by the same agent, with two processes that have MONAI imported before they start."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", RESTARTS: str(max_restarts)}
    return run_python(Path(__file__), *arguments, cwd=TOP, env=environment)


def _work(words: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has the agent's handlers, which an interpreter would not
    signal.signal(signal.SIGINT, signal.default_int_handler)
    atexit._clear()  # of the agent's functions
    try:
        become(words)
    finally:
        atexit._run_exitfuncs()  # an interpreter calls them at its end, a fork does not


def _launch(words: list[str]) -> None:
    from torch.distributed.elastic.multiprocessing.errors import record
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=int(os.environ.get(RESTARTS, 0)),
        start_method="fork",
    )
    record(elastic_launch(config, _work))(words)


def torchrun(*arguments: object, processes: int = 2, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run ``torchrun --standalone --nproc_per_node PROCESSES ARGUMENTS`` at the top of the checkout, to its end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += [str(argument) for argument in arguments]
    environment = {**os.environ, "PYTHONPATH": str(TOP), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command,
        cwd=TOP,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        encoding="utf-8",
    )


if __name__ == "__main__":
    _launch(sys.argv[1:])
