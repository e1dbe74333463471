# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The formulas of docs/scaling.md against figures worked out by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
# 100 TFLOP/s are reached, a kernel takes 10 us, 4 cores a GPU, 10 GB/s in a machine and 1 GB/s between machines
GPU = {"peak": 200e12, "fraction": 0.5, "launch": 1e-5, "cores": 4, "inside": 10e9, "outside": 1e9}
TRAINING = {
    "GFLOP per image": 50.0,
    "kernels per step": 100,
    "MB of gradients": 20.0,
    "prepare, s per case": 2.0,
    "loader, images/s per core": 1000.0,
    "batch": 16,
    "images per case": 8,
}
INFERENCE = {"GFLOP per volume": 1000.0, "kernels per volume": 100, "read, s": 0.3, "write, s": 0.02}


@pytest.fixture
def cost(monkeypatch):
    monkeypatch.syspath_prepend(str(TOP / "scripts"))
    import benchmarks.cost

    yield benchmarks.cost
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


def test_exchange_in_a_ring(cost):
    assumed = cost.Assumed(**GPU)
    assert cost.exchange_seconds(1, 20.0, assumed) == 0
    assert cost.exchange_seconds(2, 20.0, assumed) == pytest.approx(0.002)
    assert cost.exchange_seconds(16, 20.0, assumed) == pytest.approx(0.0375), "between machines"


@pytest.mark.parametrize(
    ("changed", "gpus", "hours", "limit"),
    [
        # 32 cases x 8 images / 16 = 16 steps of 8 ms, 10 epochs; 16 s to prepare 32 cases on 4 cores
        ({}, 1, (16 + 10 * 16 * 0.008) / 3600, "network"),
        ({"kernels per step": 1000}, 1, (16 + 10 * 16 * 0.010) / 3600, "kernels' start"),
        ({"loader, images/s per core": 100.0}, 1, (16 + 10 * 16 * 0.040) / 3600, "loader"),
        # two cases each: 1 step; 37.5 ms of exchange
        ({}, 16, (1 + 10 * 1 * 0.0455) / 3600, "exchange"),
        # one image each of 50 epochs more than there are cases
        ({}, 64, math.nan, "fewer cases than GPUs"),
    ],
)
def test_training(cost, changed, gpus, hours, limit):
    schedule = cost.Schedule(cases=32, epochs=10, source="")
    found = cost.training_hours({**TRAINING, **changed}, schedule, gpus, cost.Assumed(**GPU))
    assert found == (pytest.approx(hours, nan_ok=True), limit)


@pytest.mark.parametrize(
    ("changed", "gpus", "hours", "limit"),
    [
        ({"write, s": 0.005}, 1, 1000 * 0.1 / 3600, "reading"),  # 0.3 s by three cores; the fourth has the network
        ({"read, s": 0.03, "write, s": 0.005}, 1, 1000 * 0.015 / 3600, "network"),
        ({"read, s": 0.03}, 4, 250 * 0.03 / 3600, "writing"),
        ({"read, s": 0.03}, 3, 334 * 0.03 / 3600, "writing"),
    ],
)
def test_inference(cost, changed, gpus, hours, limit):
    found = cost.inference_hours({**INFERENCE, **changed}, 1000, gpus, cost.Assumed(**GPU))
    assert found == (pytest.approx(hours), limit)


def test_it_knows_every_bundle(cost):
    assert set(cost.SCHEDULES) == set(cost.DATA) == {folder.name for folder in (TOP / "bundles").iterdir()}
