# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The devices of tests that also run on a GPU."""

from __future__ import annotations

import os

import pytest
import torch

from tests.engines.distributed_run import make_batches, make_trainer

# read when cuBLAS starts; deterministic algorithms need it
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

GPU = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = ["cpu", GPU]
TRAINERS = ["segan", "segmentation", "normalization", "lsnet"]


def trainer_on(device, name, batches=3, **settings):
    """A trainer of ``distributed_run`` with its networks on a device."""
    trainer = make_trainer(name, make_batches(name)[:batches], device=device, **settings)
    for network in networks_of(trainer):
        network.to(device)
    return trainer


def networks_of(trainer):
    return (trainer.network, *trainer.adversaries.values())


def weights_of(trainer):
    """All weights in one float64 vector on the CPU."""
    return torch.cat([p.detach().double().cpu().flatten() for net in networks_of(trainer) for p in net.parameters()])
