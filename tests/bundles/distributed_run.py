# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What each of two processes does for `test_multi_gpu`: the runs that the JSON file in the first argument lists."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from tests.bundles.workflow import run_workflow

if __name__ == "__main__":
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run_workflow(**job, device="$segan_monai.device_of_process()", finalize=[])
    torch.distributed.destroy_process_group()
