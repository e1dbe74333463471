# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Search for settings of a training by Ray Tune, with Optuna's search and early stopping."""

from segan_monai.sweep.page import write_sweep_page
from segan_monai.sweep.results import SweepTrial, read_trials, write_results
from segan_monai.sweep.search import run_sweep
from segan_monai.sweep.space import Space, read_space
from segan_monai.sweep.training import Sweep

__all__ = [
    "Space",
    "Sweep",
    "SweepTrial",
    "read_space",
    "read_trials",
    "run_sweep",
    "write_results",
    "write_sweep_page",
]
