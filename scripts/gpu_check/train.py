# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trains the hippocampus bundle for a given time, and writes Dice, seconds and images per second.

A short training measures the seconds of an epoch; then a whole training has as many epochs as fit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from monai.bundle import ConfigWorkflow

BUNDLE = Path(__file__).parents[2] / "bundles" / "hippocampus_mri_segan_segmentation"
SMALL = {
    "base_channels": 2,
    "full_resolution_channels": 2,
    "max_cases": 4,
    "folds": 2,
    "slices_per_volume": 2,
    "batch_size": 4,
}


class Trained(NamedTuple):
    """Result of a training: its ``history.csv``, the seconds of everything, and the slices per epoch."""

    history: pd.DataFrame
    seconds: float
    slices: int


def train(settings: dict[str, Any], output: Path, epochs: int) -> Trained:
    """Train the bundle, with one validation at the end."""
    begin = time.monotonic()
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "configs" / "train.json"),
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        run_id="training",
        output_dir=str(output),
        ckpt_dir=str(output),
        epochs=epochs,
        val_interval=epochs,
        **settings,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    cases = len(workflow.parser.get_parsed_content("split")["training"])
    slices = cases * workflow.parser.get_parsed_content("slices_per_volume")
    return Trained(pd.read_csv(output / "history.csv"), time.monotonic() - begin, slices)


def main() -> None:
    """Measure an epoch, train, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--small", action="store_true", help="a few cases and weights, one epoch")
    parser.add_argument("--without-critics", action="store_true")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    begin = time.monotonic()
    settings: dict[str, Any] = {"dataset_dir": str(options.data), "device": options.device}
    if options.without_critics:
        settings["adversarial_weight"] = 0.0
    settings |= SMALL if options.small else {"num_workers": min(8, max(0, (os.cpu_count() or 1) - 2))}
    side = "without critics" if options.without_critics else "with critics"
    with tempfile.TemporaryDirectory() as folder:
        settings["cache_dir"] = f"{folder}/cache"
        epochs = 1
        if not options.small:
            short = train({**settings, "critic_start": 1}, Path(folder, "short"), 3)
            write(options.json, side, short)  # remains if the time limit ends the training
            of_epochs = short.history.groupby("epoch")["seconds"].max()
            left = options.seconds - (time.monotonic() - begin) - (short.seconds - float(of_epochs.sum()))
            epochs = max(3, int(left / (1.05 * float(of_epochs.loc[2:].mean()))))
        write(options.json, side, train(settings, Path(folder, "training"), epochs))


def write(file: Path, side: str, trained: Trained) -> None:
    """Write and print the result of a training."""
    history = trained.history[trained.history["epoch"] > 0]
    of_epochs = history.groupby("epoch")["seconds"].max()
    values = history[history["name"].str.startswith("validation/")].set_index("name")["value"]
    row = {
        "side": side,
        "epochs": len(of_epochs),
        "seconds": trained.seconds,
        "images/s": trained.slices / float(of_epochs.median()),  # mostly before the critics join
        "images/s at the end": trained.slices / float(of_epochs.iloc[-1]),
        **{name.removeprefix("validation/"): float(value) for name, value in values.items()},
    }
    file.write_text(json.dumps({"title": "hippocampus", "rows": [row]}, indent=4) + "\n", encoding="utf-8")
    print(json.dumps(row))


if __name__ == "__main__":
    sys.exit(main())
