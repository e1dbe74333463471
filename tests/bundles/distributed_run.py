# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What each of two processes does for `test_multi_gpu`: the runs that the JSON file in the first argument lists."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from ignite.engine import Engine, Events

from tests.bundles.workflow import run_workflow


class KilledOnce:
    """Handler that kills the second process in the second epoch, unless torchrun has started it again."""

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            second = Events.ITERATION_COMPLETED(event_filter=lambda trainer, number: trainer.state.epoch == 2)
            engine.add_event_handler(second, lambda: os.kill(os.getpid(), signal.SIGKILL))


if __name__ == "__main__":
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run_workflow(**job, device="$segan_monai.device_of_process()", finalize=[])
    torch.distributed.destroy_process_group()
