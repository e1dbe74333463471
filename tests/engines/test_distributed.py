# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import torch
import torch.distributed as dist
from segan_monai.engines import SegANTrainer
from segan_monai.losses import MultiScaleL1Loss
from segan_monai.networks import SegANCritics, SegANSegmentor

dist.init_process_group("gloo")
torch.manual_seed(dist.get_rank())  # weights and data differ
segmentor, critic = SegANSegmentor(1, 1, base_channels=2), SegANCritics(1, 1, base_channels=2)
batch = {"image": torch.rand(2, 1, 32, 32), "label": (torch.rand(2, 1, 32, 32) > 0.5).float()}
SegANTrainer(
    device="cpu", max_epochs=3, train_data_loader=[batch], network=segmentor, critic=critic,
    optimizer=torch.optim.Adam(segmentor.parameters()), critic_optimizer=torch.optim.Adam(critic.parameters()),
    loss_function=MultiScaleL1Loss(), clamp=0.05,
).run()
mine = torch.cat([p.detach().flatten() for net in (segmentor, critic) for p in net.parameters()])
both = [torch.empty_like(mine) for _ in range(2)]
dist.all_gather(both, mine)
images = [torch.empty_like(batch["image"]) for _ in range(2)]
dist.all_gather(images, batch["image"])
assert torch.equal(*both) and not torch.equal(*images)
dist.destroy_process_group()
"""


def test_processes_with_data_of_their_own_keep_the_same_weights(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    top = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(top), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=top, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
