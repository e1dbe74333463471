# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Augmentation of slices: one by one as in the loader, and whole batches on a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from monai.bundle import ConfigParser
from monai.transforms import Compose

from benchmarks.segan import make_batch
from benchmarks.tables import Device, JsonFile, ProcessorTime, Rounds, by_turns, report
from segan_monai.transforms import AugmentBatch

BRATS = Path(__file__).parents[2] / "bundles" / "brats_mri_segan_segmentation" / "configs" / "train.json"
# affine and elastic deformation of all slices cost most
MIXTURES: dict[str, dict[str, float]] = {
    "affine": {"augmentation_probability": 1.0, "elastic_magnitude": 0.0},
    "affine and elastic": {"augmentation_probability": 1.0, "elastic_magnitude": 6.0},
    "as configs/lgg.json": {"augmentation_probability": 0.7, "elastic_magnitude": 6.0},
}


def steps_of_bundle(settings: dict[str, float]) -> list[Any]:
    """Return the transforms of the BraTS bundle that follow the cutting of slices."""
    parser = ConfigParser()
    parser.read_config(str(BRATS))
    parser.update(settings)
    parser.parse()
    return [step for step in parser.get_parsed_content("train#augmentation") if step is not None]


def one_by_one(steps: list[Any], batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    """Return what one process of the loader does for a batch."""
    transform = Compose(steps).set_random_state(0)
    samples = [{key: value[index] for key, value in batch.items()} for index in range(len(batch["image"]))]

    def run() -> None:
        for sample in samples:
            transform(dict(sample))

    return run


def augmentation(
    rounds: Rounds = 3,
    batch_size: Annotated[int, typer.Option(help="slices of 160x160 with three modalities and regions")] = 64,
    device: Device = "cpu",
    processor_time: ProcessorTime = False,
    json_file: JsonFile = None,
) -> None:
    """Time the augmentation of the BraTS bundle: in one process of the loader, and of whole batches on a device.

    The time on a device includes the copy of the batch.
    """
    batch = make_batch(batch_size)
    if device != "cpu":
        batch = {key: value.pin_memory() for key, value in batch.items()}

    def whole(steps: list[Any], place: str) -> Callable[[], None]:
        augment = AugmentBatch(steps)
        return lambda: (augment({k: v.to(place, non_blocking=True) for k, v in batch.items()}), None)[1]

    sides: dict[tuple[str, str], Callable[[], Any]] = {}
    for name, settings in MIXTURES.items():
        steps = steps_of_bundle(settings)
        sides[name, "loader"] = one_by_one(steps, batch)
        for place in dict.fromkeys(["cpu", device]):
            sides[name, place] = whole(steps, place)
    seconds = by_turns(sides, rounds, processor_time)
    rows = []
    for (name, place), value in seconds.items():
        where = "one by one, cpu" if place == "loader" else f"batch, {place}"
        faster = seconds[name, "loader"] / value
        rows.append({"side": f"{name}: {where}", "ms per slice": 1e3 * value / batch_size, "times as fast": faster})
    report(f"augmentation: slices of 160x160, 3 modalities, batches of {batch_size}", rows, json_file)
