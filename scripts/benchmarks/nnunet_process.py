# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs nnU-Net for ``benchmark.py peers``; started by nnunet.py in the environment of scripts/install_nnunet.sh.

python scripts/benchmarks/nnunet_process.py train|predict SETTINGS.json
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def make_trainer(settings: dict[str, Any]) -> nnUNetTrainer:
    """Create a trainer of fold 0 and a configuration with the planner's settings, and the given batch size if any."""
    folder = Path(settings["preprocessed"])
    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    if settings["batch_size"]:
        plans["configurations"][settings["configuration"]]["batch_size"] = settings["batch_size"]
    plans["continue_training"] = False
    dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    return nnUNetTrainer(plans, settings["configuration"], 0, dataset, torch.device("cpu"))


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Train nnU-Net for a given processor time; its polynomial decay ends with this time."""
    torch.manual_seed(settings["seed"])
    np.random.seed(settings["seed"])
    trainer = make_trainer(settings)
    trainer.on_train_start()
    trainer.network.train()
    precision = torch.autocast("cpu", torch.bfloat16) if settings["bfloat16"] else nullcontext()
    losses = []
    start = time.process_time()
    while (share := (time.process_time() - start) / settings["train_seconds"]) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - share) ** 0.9
        batch = next(trainer.dataloader_train)
        with precision:
            losses.append(float(trainer.train_step(batch)["loss"]))
    seconds = time.process_time() - start
    torch.save(
        {"network": trainer.network.state_dict(), "mirroring": trainer.inference_allowed_mirroring_axes},
        settings["weights"],
    )
    return {
        "seconds": seconds,
        "iterations": len(losses),
        "batch_size": trainer.batch_size,
        "patch_size": [int(side) for side in trainer.configuration_manager.patch_size],
        "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
        "first_loss": losses[0],
        "last_loss": float(np.mean(losses[-10:])),
    }


def predict(settings: dict[str, Any]) -> dict[str, Any]:
    """Read, predict and write all cases, with or without mirroring."""
    trainer = make_trainer(settings)
    trainer.initialize()
    trainer.set_deep_supervision_enabled(False)
    saved = torch.load(settings["weights"])
    predictor = nnUNetPredictor(use_mirroring=settings["mirroring"], device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [saved["network"]],
        trainer.dataset_json,
        "nnUNetTrainer",
        saved["mirroring"],
    )
    images, outputs = ([[file] for file in settings["images"]], settings["outputs"])
    precision = torch.autocast("cpu", torch.bfloat16) if settings["bfloat16"] else nullcontext()
    start = time.process_time()
    with precision:
        predictor.predict_from_files_sequential(images, outputs)
    return {"seconds": time.process_time() - start}


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    result = {"train": train, "predict": predict}[sys.argv[1]](given)
    Path(given["result"]).write_text(json.dumps(result, indent=4) + "\n", encoding="utf-8")
