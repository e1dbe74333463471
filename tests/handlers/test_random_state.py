# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import numpy as np
import torch

from segan_monai.handlers.random_state import random_state, set_random_state

CPU = torch.device("cpu")


def drawn():
    """Numbers of each generator; a normal number leaves a second one in the states of Python and numpy."""
    return random.gauss(0, 1), np.random.normal(), np.random.rand(), torch.randn(1).item()


def test_the_generators_go_on_where_the_state_was_taken_also_from_a_file(tmp_path):
    for seed, seeded in enumerate((random.seed, np.random.seed, torch.manual_seed)):
        seeded(seed)
    drawn()
    torch.save(random_state(CPU), tmp_path / "state.pt")
    expected = [drawn(), drawn()]
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True), CPU)
    assert [drawn(), drawn()] == expected
    assert expected[0] != expected[1]


def test_a_state_of_a_gpu_is_passed_over_without_one():
    set_random_state({**random_state(CPU), "cuda": None}, CPU)
