# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A process group of one: NCCL on a GPU, gloo on the CPU."""

from __future__ import annotations

import os
import socket

import pytest

from tests.forked import run_python
from tests.gpu.devices import DEVICES

RUN = """
import sys
import torch
from segan_monai.processes import any_rank, gather_objects, init_process_group_for
from tests.gpu.devices import trainer_on, weights_of
device = sys.argv[1]
init_process_group_for(device)
assert torch.distributed.get_backend() == ("nccl" if device == "cuda" else "gloo")
for operation in (torch.distributed.ReduceOp.SUM, torch.distributed.ReduceOp.MAX):
    value = torch.arange(5.0, device=device)
    torch.distributed.all_reduce(value, operation)
    assert value.tolist() == [0, 1, 2, 3, 4]
value = torch.ones(3, device=device)
torch.distributed.broadcast(value, src=0)
gathered = [None]
torch.distributed.all_gather_object(gathered, {"case": 1})
assert gathered == [{"case": 1}]
objects = ["a"]
torch.distributed.broadcast_object_list(objects, src=0)
trainer = trainer_on(device, "segan")
before = weights_of(trainer)
trainer.run()
assert any_rank(True) and gather_objects(2) == [2] and not torch.equal(weights_of(trainer), before)
torch.distributed.destroy_process_group()
print("complete")
"""


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_collectives_and_a_training(device):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    done = run_python("-c", RUN, device, env={**os.environ, **alone})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "complete"
