# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""One process by itself, wrong starts, and the end; for two processes see tests/engines/test_distributed.py."""

from __future__ import annotations

import pytest
import torch

from segan_monai import device_of_process, process_rank, shard
from segan_monai.errors import ConfigError
from segan_monai.processes import average_over_processes, gather_objects
from tests.torchrun import torchrun_in_forks

pytestmark = pytest.mark.slow


def test_a_process_alone_keeps_what_it_has():
    tensor = torch.tensor([1.0, 2.0])
    average_over_processes([tensor])
    assert tensor.tolist() == [1, 2]
    assert gather_objects("a") == ["a"]
    assert shard(["a", "b", "c"]) == shard(["a", "b", "c"], repeat=True) == ["a", "b", "c"]


def test_the_overlay_without_torchrun_says_how_to_start(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ConfigError, match=r"did not start this one. Run torchrun --standalone --nproc_per_node GPUS"):
        device_of_process()


def test_every_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of_process() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of_process() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"process 2 .* there are 2. Pass --nproc_per_node 2"):
        device_of_process()


def test_the_number_is_known_before_the_processes_meet(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert process_rank() == 0
    monkeypatch.setenv("RANK", "3")
    assert process_rank() == 3


def test_processes_that_met_part_before_python_ends(tmp_path):
    script = tmp_path / "meet.py"
    script.write_text(
        "import atexit, os, pathlib, torch\n"
        "import segan_monai.processes as processes\n"
        "met = pathlib.Path(__file__).with_name(os.environ['RANK'])\n"
        "in_the_group = torch.distributed.is_initialized\n"
        "atexit.register(lambda: met.write_text(met.read_text() + f' {in_the_group()}'))  # called last\n"
        "processes.meet_processes()\n"
        "met.write_text(f'{processes.gather_objects(1)} {in_the_group()}')\n",
        encoding="utf-8",
    )
    run = torchrun_in_forks(script)
    assert run.returncode == 0, run.stderr
    assert [(tmp_path / rank).read_text(encoding="utf-8") for rank in ("0", "1")] == ["[1, 1] True False"] * 2
