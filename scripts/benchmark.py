# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Speed ratios, with both sides of each ratio timed alternately in one process. Run it on an idle machine.

``quality`` measures the quality estimate instead, on corrupted images; it may run on a busy machine.

python scripts/benchmark.py COMMAND [--json FILE]
"""

from __future__ import annotations

import typer
from benchmarks.augmentation import augmentation
from benchmarks.cost import cost_model
from benchmarks.limit import limit
from benchmarks.loading import data, start_up
from benchmarks.lsnet import rois
from benchmarks.normalization import normalization_step
from benchmarks.onnx import exports
from benchmarks.peers import peers
from benchmarks.quality import quality
from benchmarks.scaling import folder, scaling, two_processes
from benchmarks.segan import classes, critics, train_step
from benchmarks.volumes import inference

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for command in (
    train_step,
    limit,
    critics,
    peers,
    classes,
    normalization_step,
    inference,
    rois,
    data,
    augmentation,
    start_up,
    scaling,
    two_processes,
    folder,
    cost_model,
    exports,
    quality,
):
    app.command()(command)

if __name__ == "__main__":
    app()
