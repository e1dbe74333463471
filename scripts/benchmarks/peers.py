# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Comparison with peers: the literal algorithm, MONAI's slice inference, a MONAI bundle, nnU-Net."""

from __future__ import annotations

import copy
import statistics
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from monai.inferers import Inferer, SlidingWindowInferer
from monai.networks.nets import SegResNet
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.nnunet import SIDES, Task, hippocampus
from benchmarks.segan import train_step
from benchmarks.tables import JsonFile, Rounds, peak_gib, report
from benchmarks.volumes import inference
from segan_monai.inferers import VolumeSliceInferer
from segan_monai.networks import SegANSegmentor
from segan_monai.simulation.phantom import make_phantom
from segan_monai.transforms import scale_foreground

Row = Enum("Row", {name: name for name in ("train-step", "inference", "brats", *SIDES)})


def peers(
    row: Annotated[list[Row] | None, typer.Option(help="Run only this row; can be repeated.")] = None,
    dataset_dir: Annotated[Path, typer.Option(help="Decathlon folder of the hippocampus data.")] = Path(
        "Task04_Hippocampus"
    ),
    output_dir: Annotated[Path, typer.Option(help="Folder of the trained networks.")] = Path("output/peers"),
    train_seconds: Annotated[
        float, typer.Option(help="Training time per side on the hippocampus data, in seconds.")
    ] = 240,
    nnunet_python: Annotated[Path, typer.Option(help="Interpreter created by scripts/install_nnunet.sh.")] = Path(
        ".venv-nnunet/bin/python"
    ),
    rounds: Rounds = 3,
    json_file: JsonFile = None,
) -> None:
    """Compare this project with its peers, one table each: train-step, inference, brats, hippocampus (other rows)."""
    chosen = [choice.value for choice in row or Row]

    def file(name: str) -> Path | None:
        return json_file and json_file.with_stem(f"{json_file.stem}_{name}")

    if "train-step" in chosen:
        train_step(rounds=rounds, json_file=file("train_step"))
    if "inference" in chosen:
        inference(rounds=rounds, json_file=file("inference"))
    if "brats" in chosen:
        brats(rounds, file("brats"))
    if sides := [name for name in SIDES if name in chosen]:
        task = Task(dataset_dir, output_dir, train_seconds, nnunet_python.absolute())
        hippocampus(task, sides, rounds, file("hippocampus"))


def brats(rounds: int, json_file: Path | None) -> None:
    """Compare MONAI's bundle brats_mri_segmentation with this project's on a 240x240x155 volume, random weights."""
    phantom = make_phantom(seed=1, spacing_mm=1.0)
    image = torch.stack([torch.as_tensor(phantom.images[name]).float() for name in ("t1c", "t2", "flair", "t1")])
    four = scale_foreground(image)[None]
    three = four[:, :3]
    torch.manual_seed(0)
    segresnet = SegResNet(
        blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1), init_filters=16, in_channels=4, out_channels=3, dropout_prob=0.2
    )
    window = SlidingWindowInferer(roi_size=(240, 240, 160), sw_batch_size=1, overlap=0.5)
    segan = {base: SegANSegmentor(3, 3, base).to(memory_format=torch.channels_last) for base in (64, 16)}
    sides: dict[str, tuple[Inferer, torch.nn.Module, torch.Tensor, bool]] = {
        "MONAI's SegResNet": (window, segresnet, four, False),
        "base 64": (VolumeSliceInferer(), segan[64], three, False),
        "base 64, bfloat16": (VolumeSliceInferer(amp=True), segan[64], three, True),
        "base 64, bfloat16, empty voxels too": (VolumeSliceInferer(amp=True, skip_empty=False), segan[64], three, True),
        "base 16, bfloat16": (VolumeSliceInferer(amp=True), segan[16], three, True),
        "MONAI's SegResNet, bfloat16": (window, segresnet, four, True),
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (inferer, network, volume, amp) in sides.items():
            measured[name].append(cost(inferer, network.eval(), volume, amp))
            typer.echo(f"{name}: {measured[name][-1][0]:.1f} s", err=True)
    rows: list[dict[str, Any]] = []
    for name, runs in measured.items():
        seconds, peak = (statistics.median(values) for values in zip(*runs, strict=True))
        first = rows[0]["processor s"] if rows else seconds
        row = {"side": name, "processor s": seconds, "ratio": first / seconds}
        operations = gflop(*sides[name][:3])
        rows.append(row | {"GFLOP": operations, "GFLOP/s": operations / seconds, "memory GiB": peak})
    report("brats: 240x240x155, random weights: cost only; memory beyond network and image", rows, json_file)


def cost(inferer: Inferer, network: torch.nn.Module, volume: torch.Tensor, amp: bool) -> tuple[float, float]:
    """Return the processor seconds of one prediction, and its additional memory in GiB."""

    def run() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=amp):
            inferer(volume, network)

    start = time.process_time()
    peak = peak_gib(run)
    return time.process_time() - start, peak


def gflop(inferer: Inferer, network: torch.nn.Module, volume: torch.Tensor) -> float:
    """Return the GFLOP of a prediction, counted from the shapes of the inferer's batches without computing them."""
    shapes = []

    def look(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(batch.shape)
        return batch[:, :3]

    inferer(volume, look)
    shapeless = copy.deepcopy(network).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        for shape in shapes:
            shapeless(torch.empty(shape, device="meta"))
    return flops.get_total_flops() / 1e9
