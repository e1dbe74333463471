# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Comparison of nnU-Net v2 (2-D and 3-D) with the hippocampus bundle: same cases, split and training time."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import typer
from monai.bundle import ConfigParser, ConfigWorkflow

from benchmarks.tables import report
from segan_monai.data import find_cases, split_cases, write_nnunet, write_nnunet_split
from segan_monai.metrics import evaluate_folders
from segan_monai.reproduce import load_tables
from segan_monai.reproduce.results import read_training

BUNDLE = Path("bundles/hippocampus_mri_segan_segmentation")
CPU = Path("configs/cpu.json")
AXIAL = Path("configs/axial_slices.json")  # slices along one axis, as in nnU-Net's 2-D plan
DATASET = "Dataset004_Hippocampus"
REGIONS = {"anterior": [1], "posterior": [2]}
SEED = 0
CALIBRATION_EPOCHS = 10


@dataclass(frozen=True)
class Ours:
    """The bundle as it is, or a row of the table ``segan-vs-unet`` on single axial slices; and further config keys."""

    row: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def overlays(self) -> list[Path]:
        """Overlays of training and inference."""
        if self.row is None:
            return [CPU]
        (table,) = load_tables("segan-vs-unet", BUNDLE.name)
        return [CPU, AXIAL, *table.rows[self.row]]


@dataclass(frozen=True)
class Theirs:
    """NnU-Net with its planner's settings, optionally with another batch size and in bfloat16."""

    batch_size: int | None = None
    bfloat16: bool = False
    configuration: str = "2d"


SIDES: dict[str, Ours | Theirs] = {
    "bundle": Ours(),
    "segan": Ours("SegAN"),
    "segan-float32": Ours("SegAN", {"amp": False}),
    "unet": Ours("U-Net + Dice"),
    "nnunet": Theirs(),
    "nnunet-batch-32": Theirs(batch_size=32, bfloat16=True),
    "nnunet-3d": Theirs(bfloat16=True, configuration="3d_fullres"),
}
NAMES = {
    "bundle": "the bundle as it is, three axes",
    "segan": "SegAN, axial slices",
    "segan-float32": "SegAN, axial slices, float32",
    "unet": "its segmentor as U-Net, Dice + CE",
    "nnunet": "nnU-Net 2-D",
    "nnunet-batch-32": "nnU-Net 2-D, batch 32, bfloat16",
    "nnunet-3d": "nnU-Net 3-D, bfloat16",
}


@dataclass(frozen=True)
class Task:
    """Data, training time and folder of a comparison."""

    dataset_dir: Path
    output_dir: Path
    train_seconds: float
    python: Path

    @property
    def held_out(self) -> list[dict[str, Any]]:
        """Cases held out by the bundle with its default settings."""
        return self.split["validation"]

    @property
    def split(self) -> dict[str, list[dict[str, Any]]]:
        """Split of the bundle."""
        settings = json.loads((BUNDLE / "configs" / "train.json").read_text(encoding="utf-8"))
        cases = find_cases(self.dataset_dir, require_labels=True)
        return split_cases(cases, settings["folds"], settings["fold"], SEED)

    def links(self, kind: str) -> Path:
        """Create a folder of links to only the held-out images or label maps."""
        folder = self.output_dir / f"held_out_{kind}s"
        folder.mkdir(parents=True, exist_ok=True)
        for case in self.held_out:
            target = Path(case[kind]).resolve()
            link = folder / target.name
            if not link.is_symlink():
                link.symlink_to(target)
        return folder

    def dice(self, predictions: Path) -> dict[str, float]:
        """Return the mean Dice of each region, as computed by ``segan-monai evaluate``."""
        folder = predictions.with_name(f"{predictions.name}_metrics")
        evaluate_folders(predictions, self.links("label"), folder, REGIONS)
        regions = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["regions"]
        return {name: regions[name]["dice"]["mean"] for name in REGIONS}


def hippocampus(task: Task, sides: list[str], rounds: int, json_file: Path | None) -> None:
    """Train each side for the same time, then predict the held-out volumes with each side alternately.

    Times are processor seconds on one thread, equal to elapsed time on an idle core.
    """
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    predictors: list[Callable[[], float]] = []
    folders: list[Path] = []
    for configuration in dict.fromkeys(s.configuration for name in sides if isinstance(s := SIDES[name], Theirs)):
        _prepare_nnunet(task, configuration)
    for name in sides:
        side = SIDES[name]
        if isinstance(side, Ours):
            row, run, folder = _train_ours(task, name, side)
            variants = [(NAMES[name], run, folder)]
        else:
            row, variants = _train_theirs(task, name, side)
        for label, run, folder in variants:
            rows.append({"side": label, **row})
            predictors.append(run)
            folders.append(folder)
    seconds: list[list[float]] = [[] for _ in rows]
    for _ in range(rounds):
        for run, times in zip(predictors, seconds, strict=True):
            times.append(run())
    for row, times, folder in zip(rows, seconds, folders, strict=True):
        row["s/volume"] = statistics.median(times) / len(task.held_out)
        row |= {f"{name[:4]}.": value for name, value in task.dice(folder).items()}
    sizes = f"{len(task.split['training'])} cases to train, {len(task.held_out)} held out"
    report(f"hippocampus: {task.train_seconds:g} s of training per side; {sizes}; volume Dice", rows, json_file)


def _train_ours(task: Task, name: str, side: Ours) -> tuple[dict[str, Any], Callable[[], float], Path]:
    folder = task.output_dir / f"{name}_{task.train_seconds:g}s"
    overlays = side.overlays
    trained = folder / "trained.json"
    if not trained.is_file():
        calibrated = _train_epochs(task, folder / "calibration", overlays, side, CALIBRATION_EPOCHS)
        epochs = max(1, round(task.train_seconds / (calibrated / CALIBRATION_EPOCHS)))
        seconds = _train_epochs(task, folder / "training", overlays, side, epochs)
        trained.write_text(json.dumps({"seconds": seconds, "epochs": epochs}), encoding="utf-8")
    result = json.loads(trained.read_text(encoding="utf-8"))
    settings = _settings(overlays)
    volumes_a_batch = settings["batch_size"] // settings["slices_per_volume"]
    volumes = len(task.split["training"])
    row = {
        "plane": "x".join(map(str, settings["slice_size"])),
        "batch": settings["batch_size"],
        "M par.": read_training(folder / "training")["parameters"]["network"] / 1e6,
        "train s": result["seconds"],
        "iterations": result["epochs"] * -(-volumes // volumes_a_batch),
        "slices/s": result["epochs"] * volumes * settings["slices_per_volume"] / result["seconds"],
    }
    predictions = folder / "predictions"

    def predict() -> float:
        workflow = ConfigWorkflow(
            config_file=[str(file) for file in (BUNDLE / "configs" / "inference.json", *overlays)],
            meta_file=str(BUNDLE / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type="infer",
            run_id="inference",
            dataset_dir=str(task.links("image")),
            ckpt_dir=str(folder / "training"),
            output_dir=str(predictions),
            repeat_finished=True,
            **side.settings,
        )
        workflow.initialize()
        start = time.process_time()
        workflow.run()
        return time.process_time() - start

    return row, predict, predictions


def _settings(overlays: list[Path]) -> dict[str, Any]:
    """Return the settings of a training that the table shows."""
    parser = ConfigParser()
    parser.read_config([str(file) for file in (BUNDLE / "configs" / "train.json", *overlays)])
    return {key: parser.get_parsed_content(key) for key in ("batch_size", "slices_per_volume", "slice_size")}


def _train_epochs(task: Task, folder: Path, overlays: list[Path], side: Ours, epochs: int) -> float:
    """Train the bundle; return the processor seconds from the first batch to the last validation."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {
        **side.settings,
        "dataset_dir": str(task.dataset_dir),
        "output_dir": str(folder),
        "ckpt_dir": str(folder),
        "seed": SEED,
        "epochs": epochs,
        "val_interval": epochs,
        "+imports": ["$import pathlib", "$import time"],
        "started": "$(@train#trainer, time.process_time())[1]",
        "training": [
            "$@started",
            "$@train#trainer.run()",
            "$pathlib.Path(@output_dir, 'seconds').write_text(str(time.process_time() - @started))",
        ],
    }
    file = folder.with_suffix(".json")
    file.write_text(json.dumps(own, indent=4), encoding="utf-8")
    files = [str(part) for part in (BUNDLE / "configs" / "train.json", *overlays, file)]
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(files)]
    _call(task, command, folder.with_suffix(".log"))
    return float((folder / "seconds").read_text(encoding="utf-8"))


def _train_theirs(
    task: Task, name: str, side: Theirs
) -> tuple[dict[str, Any], list[tuple[str, Callable[[], float], Path]]]:
    folder = task.output_dir / f"{name}_{task.train_seconds:g}s"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "preprocessed": str(task.output_dir / "nnunet" / "preprocessed" / DATASET),
        "train_seconds": task.train_seconds,
        "configuration": side.configuration,
        "batch_size": side.batch_size,
        "bfloat16": side.bfloat16,
        "seed": SEED,
        "weights": str(folder / "network.pt"),
    }
    trained = folder / "trained.json"
    if not trained.is_file():
        _nnunet(task, "train", settings, trained)
    result = json.loads(trained.read_text(encoding="utf-8"))
    patch = result["patch_size"]
    slices = patch[0] if len(patch) == 3 else 1  # of a patch
    row = {
        "plane": "x".join(map(str, patch)),
        "batch": result["batch_size"],
        "M par.": result["parameters"] / 1e6,
        "train s": result["seconds"],
        "iterations": result["iterations"],
        "slices/s": result["iterations"] * result["batch_size"] * slices / result["seconds"],
    }
    files = sorted(task.links("image").iterdir())

    def variant(mirroring: bool) -> tuple[str, Callable[[], float], Path]:
        predictions = folder / ("mirrored" if mirroring else "plain")
        predictions.mkdir(exist_ok=True)
        outputs = [str(predictions / f"{file.name.removesuffix('.nii.gz')}_seg") for file in files]
        more = {"images": list(map(str, files)), "outputs": outputs, "mirroring": mirroring}
        result = predictions.with_suffix(".json")

        def predict() -> float:
            _nnunet(task, "predict", {**settings, **more}, result)
            return json.loads(result.read_text(encoding="utf-8"))["seconds"]

        return f"{NAMES[name]}{'' if mirroring else ', not mirrored'}", predict, predictions

    return row, [variant(True), variant(False)]


def _prepare_nnunet(task: Task, configuration: str) -> None:
    """Create data set, split, plan and preprocessed cases of a configuration, unless they exist."""
    if not task.python.is_file():
        typer.echo(f"{task.python} does not exist: run bash scripts/install_nnunet.sh, or select rows without nnU-Net.")
        raise typer.Exit(1)
    folder = task.output_dir / "nnunet"
    write_nnunet_split(task.split, folder / "preprocessed" / DATASET / "splits_final.json")
    planned = folder / ("planned.json" if configuration == "2d" else f"planned_{configuration}.json")
    if planned.is_file():
        return
    cases = [case for part in task.split.values() for case in part]
    write_nnunet(cases, folder / "raw" / DATASET, ["MRI"], {name: values[0] for name, values in REGIONS.items()})
    start = time.perf_counter()
    command = ["-d", "4", "-c", configuration, "-np", "1", "-npfp", "1", "--verify_dataset_integrity"]
    _call(task, [str(task.python.with_name("nnUNetv2_plan_and_preprocess")), *command], folder / "plan.log")
    planned.write_text(json.dumps({"seconds": time.perf_counter() - start}), encoding="utf-8")


def _nnunet(task: Task, command: str, settings: dict[str, Any], result: Path) -> None:
    """Train or predict in nnU-Net's environment."""
    file = result.with_suffix(f".{command}.json")
    file.write_text(json.dumps({**settings, "result": str(result)}, indent=4), encoding="utf-8")
    program = str(Path(__file__).with_name("nnunet_process.py"))
    # augment in the same process, so that its processor time is counted
    alone = {"nnUNet_n_proc_DA": "0"} if command == "train" else {}
    _call(task, [str(task.python), program, command, str(file)], result.with_suffix(".log"), alone)


def _call(task: Task, command: list[str], log: Path, more: Mapping[str, str] = MappingProxyType({})) -> None:
    """Run a program on one thread, and redirect its output to a file."""
    folder = (task.output_dir / "nnunet").resolve()
    environment = {
        **os.environ,
        **{f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")},
        "OMP_NUM_THREADS": "1",
        **more,
    }
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(command, env=environment, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        typer.echo(f"{' '.join(command)} ended with status {done.returncode}; see {log}", err=True)
        raise typer.Exit(1)
