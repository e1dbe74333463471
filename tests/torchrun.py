# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Start processes that train or evaluate together, on the CPU of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]


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
