# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Data loading: throughput during training, and start-up time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceLoss

from benchmarks.segan import make_batch, our_step, trainer_step
from benchmarks.tables import JsonFile, Rounds, by_turns, report
from segan_monai.data import write_phantoms
from segan_monai.networks import SegANCritics, SegANSegmentor
from segan_monai.simulation.phantom import make_phantom
from segan_monai.transforms import RandSlicesd, SlicesWithContentd, scale_foreground

TOP = Path(__file__).parents[2]
BRATS = TOP / "bundles" / "brats_mri_segan_segmentation" / "configs" / "train.json"
KEYS = ["image", "label"]


def hippocampus_step(batch_size: int) -> Callable[[], Any]:
    """Return an iteration with the sizes of the hippocampus bundle and configs/axial_slices.json (base 16, 64x64)."""
    torch.manual_seed(0)
    label = (torch.rand(batch_size, 2, 64, 64) > 0.5).float()
    batch = {"image": torch.rand(batch_size, 1, 64, 64), "label": label}
    segmentor, critic = SegANSegmentor(1, 2, base_channels=16), SegANCritics(1, 2, 8, norm=False)
    supervised_loss = DiceLoss(sigmoid=True, squared_pred=True, batch=True)
    return trainer_step(batch, segmentor, critic, supervised_loss=supervised_loss, supervised_weight=1.0, amp=False)[1]


def brats_case() -> dict[str, torch.Tensor]:
    """Simulate a case as cached by the BraTS bundle, but uncropped: 3 channels and regions, 240x240x155."""
    phantom = make_phantom(seed=1, spacing_mm=1.0)
    image = torch.stack([torch.as_tensor(phantom.images[name]).float() for name in ("t1c", "t2", "flair")])
    label = torch.stack([torch.as_tensor(phantom.label > 0)] * 3).to(torch.uint8)
    return {"image": scale_foreground(image), "label": label}


def hippocampus_case() -> dict[str, torch.Tensor]:
    """Return a random volume of the median size of Task04, with one channel and two regions."""
    torch.manual_seed(0)
    label = torch.zeros(2, 35, 51, 35, dtype=torch.uint8)
    label[:, 10:25, 15:35, 8:26] = 1
    return {"image": torch.rand(1, 35, 51, 35), "label": label}


def slices_loader(
    case: dict[str, torch.Tensor], size: int, batch_size: int, workers: int, contiguous: bool = False
) -> DataLoader:
    """Return the loader of the SegAN bundles for 16 copies of a case; ``contiguous`` selects MONAI's memory layout."""
    transforms = [SlicesWithContentd(KEYS), RandSlicesd(KEYS, "label", num_samples=8, roi_size=(size, size))]
    dataset = CacheDataset([case] * 16, transforms, progress=False, copy_cache=False, as_contiguous=contiguous)
    volumes = max(1, batch_size // 8)
    return DataLoader(dataset, batch_size=volumes, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def data(batch_size: int = 8, rounds: Rounds = 3, json_file: JsonFile = None) -> None:
    """Compare the slices per second of the training loaders, with 0 and 2 workers, with those of a training step."""
    batch = make_batch(batch_size)
    sides: dict[Any, Callable[[], Any]] = {
        "BraTS, base 64, 160x160, float32": our_step(batch, amp=False)[1],
        "BraTS, base 64, 160x160, bfloat16": our_step(batch, amp=True)[1],
        "hippocampus, base 16, 64x64, float32": hippocampus_step(32),
    }
    cases = {"BraTS": (brats_case(), 160, batch_size), "hippocampus": (hippocampus_case(), 64, 32)}
    slices = 16 * 8
    loaders: dict[Any, Callable[[], Any]] = {}
    for name, (case, size, count) in cases.items():
        for workers in (0, 2):
            loader = slices_loader(case, size, count, workers)
            loaders[name, workers] = lambda loader=loader: [sum(1 for _ in loader) for _ in range(4)]
        loader = slices_loader(case, size, count, 0, contiguous=True)
        loaders[name, "contiguous"] = lambda loader=loader: [sum(1 for _ in loader) for _ in range(4)]
    seconds = by_turns({**loaders, **sides}, rounds)
    rows = []
    for step in sides:
        name = step.split(",")[0]
        need = cases[name][2] / seconds[step]
        row: dict[str, Any] = {"side": step, "step takes, slices/s": need}
        for workers in (0, 2):
            rate = 4 * slices / seconds[name, workers]
            row |= {f"loader, {workers} workers": rate, f"ratio, {workers}": rate / need}
        row["0 workers, MONAI's memory layout"] = 4 * slices / seconds[name, "contiguous"]
        rows.append(row)
    cores = len(os.sched_getaffinity(0))
    report(f"data: slices/s of cached volumes, 8 per volume; {cores} cores for loader and step", rows, json_file)


class FirstIteration:
    """Handler that records the end time of the first iteration and the memory of the process, then exits.

    Args:
        file: Output file, JSON.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.end)

    def end(self) -> None:
        """Write the figures and exit the process."""
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
        gib = {name: int(status[name].split()[0]) / 2**20 for name in ("VmHWM", "RssAnon", "RssFile")}
        self.file.write_text(json.dumps({"ended": time.time(), **gib}), encoding="utf-8")
        os._exit(0)


def link_cases(folder: Path, volumes: int, distinct: int, spacing_mm: float) -> Path:
    """Write phantoms in BraTS's layout, each under many names (hard links)."""
    write_phantoms(folder / "distinct", cases=distinct, spacing_mm=spacing_mm, workers=1)
    sources = sorted(path for path in (folder / "distinct").iterdir() if path.is_dir())
    for number in range(volumes):
        source, name = sources[number % distinct], f"Linked2021_{number:05}"
        (folder / "cases" / name).mkdir(parents=True)
        for file in source.iterdir():
            os.link(file, folder / "cases" / name / file.name.replace(source.name, name))
    return folder / "cases"


def start_up(
    volumes: int = 8,
    distinct: int = 2,
    spacing_mm: float = 1.0,
    sides: str = "none,memory,disk cold,disk warm",
    workers: int = 0,
    folder: Path | None = None,
    json_file: JsonFile = None,
) -> None:
    """Time the BraTS bundle from the command to the end of the first iteration, on generated volumes.

    The sides are: no cache, cache in memory, and cache on disk, empty (cold) and filled (warm). There are ``distinct``
    different volumes under ``volumes`` names; the network is small (base 8). Nothing is extrapolated.
    """
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        cases = link_cases(place, volumes, distinct, spacing_mm)
        rows = [_start(side.strip(), place, cases, workers) for side in sides.split(",")]
        files = (
            sum(file.stat().st_size for file in (place / "cache").rglob("*.pt")) if (place / "cache").exists() else 0
        )
    finally:
        shutil.rmtree(place)
    title = (
        f"start-up: {volumes} BraTS volumes of {spacing_mm:g} mm ({distinct} distinct, hard links), {workers} workers"
    )
    report(f"{title}; cache on disk {files / 2**30:.2f} GiB", rows, json_file)


def _start(side: str, place: Path, cases: Path, workers: int) -> dict[str, Any]:
    overlay, result = place / "overlay.json", place / "result.json"
    handler = {"_target_": "benchmarks.loading.FirstIteration", "file": str(result)}
    settings = {
        "cache_rate": 0.0 if side == "none" else 1.0,
        "base_channels": 8,
        "num_workers": workers,
        "batch_size": 8,
    }
    settings["folds"] = min(10, len(list(cases.iterdir())))
    if side.startswith("disk"):
        settings["cache_dir"] = str(place / "cache")  # type: ignore[assignment]
    overlay.write_text(
        json.dumps({**settings, "+imports": ["$import benchmarks.loading"], "+train#handlers": [handler]}),
        encoding="utf-8",
    )
    folders = {"dataset_dir": cases, "output_dir": place / "out", "ckpt_dir": place / "out"}
    command = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "training",
        "--config_file",
        str([str(BRATS), str(overlay)]),
    ]
    command += [f"--{key}={value}" for key, value in folders.items()]
    start = time.time()
    path = os.pathsep.join([str(TOP), str(TOP / "scripts")])
    done = subprocess.run(command, cwd=place, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False)
    if not result.is_file():
        raise RuntimeError(done.stderr.decode()[-3000:])
    found = json.loads(result.read_text(encoding="utf-8"))
    result.unlink()
    return {
        "side": f"cache: {side}",
        "seconds to first iteration": found["ended"] - start,
        "peak memory GiB": found["VmHWM"],
        "private memory GiB": found["RssAnon"],
        "mapped files GiB": found["RssFile"],
    }
