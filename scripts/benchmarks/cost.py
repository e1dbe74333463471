# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Cost model of training and inference time by number of GPUs, from measurements and assumptions.

The formulas are in docs/scaling.md. Measured: operations, kernels, bytes of gradients, and seconds of a CPU core for
reading, sampling and writing. Assumed: everything about a GPU.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data.utils import dense_patch_slices
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.loading import TOP, link_cases
from benchmarks.tables import JsonFile, report

GPUS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Schedule:
    """Training schedule.

    Attributes:
        cases: Number of volumes or photographs for training.
        epochs: Epochs of the paper, or of the bundle if the paper states none.
        source: Source of the figures.
        depth: Slices per volume in inference; 1 for photographs, None if a whole volume is measured.
    """

    cases: int
    epochs: int
    source: str
    depth: int | None = None


SCHEDULES = {
    "brats_mri_segan_segmentation": Schedule(247, 500, "subjects: paper; epochs: bundle", 155),
    "hippocampus_mri_segan_segmentation": Schedule(208, 40, "bundle; no paper", 35),
    "brain_mri_adversarial_normalization_segmentation": Schedule(12, 100, "subjects: paper; epochs: bundle"),
    "skin_dermoscopy_segan_segmentation": Schedule(2000, 5000, "report", 1),
    "pancreas_ct_lsnet_segmentation": Schedule(60, 60, "paper", 237),
}


@dataclass(frozen=True)
class Assumed:
    """Assumptions about a GPU, its CPU cores and its interconnect.

    Attributes:
        peak: Published peak of the tensor cores in dense bfloat16, in operations per second.
        fraction: Fraction of the peak that convolutions reach.
        launch: Minimum time of a kernel in seconds.
        cores: CPU cores per GPU for loading.
        inside: Bytes per second between the GPUs of a machine with eight.
        outside: Bytes per second and GPU between machines.
    """

    peak: float
    fraction: float
    launch: float
    cores: int
    inside: float
    outside: float


class _Kernels(TorchDispatchMode):
    """Counter of operations that launch a GPU kernel: all but views."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def _volumes(folder: Path, shape: tuple[int, ...], labels: int, offset: float) -> dict[str, Any]:
    """Write four cases with noise in the middle, and a datalist."""
    generator = np.random.default_rng(0)
    label = np.zeros(shape, np.uint8)
    inner = tuple(slice(length // 4, 3 * length // 4) for length in shape)
    label[inner] = generator.integers(1, labels + 1) if labels == 1 else 1
    for value in range(2, labels + 1):
        label[(*inner[:-1], slice(shape[-1] * value // (labels + 3), shape[-1] * (value + 1) // (labels + 3)))] = value
    image = np.zeros(shape, np.int16)
    image[label > 0] = generator.normal(offset, 40, int((label > 0).sum()))
    entries = []
    for number in range(4):
        files = {key: folder / f"{key}_{number}.nii.gz" for key in ("image", "label")}
        for key, array in (("image", image), ("label", label)):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), files[key])
        domain = ("iSEG", "MRBrainS")[number % 2]
        entries.append({**{key: file.name for key, file in files.items()}, "case": f"case-{number}", "domain": domain})
    (folder / "datalist.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    return {"dataset_dir": str(folder), "datalist": str(folder / "datalist.json")}


def _photographs(folder: Path) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    mask = np.zeros((767, 1022), np.uint8)
    mask[200:500, 300:700] = 255
    for number in range(40):
        noise = generator.integers(120, 200, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((1022, 767)).save(folder / "images" / f"p{number}.jpg")
        Image.fromarray(mask).save(folder / "masks" / f"p{number}.png")
    return {"dataset_dir": str(folder), "official_split": False}


DATA: dict[str, Callable[[Path], dict[str, Any]]] = {
    "brats_mri_segan_segmentation": lambda folder: {"dataset_dir": str(link_cases(folder, 4, 1, 1.0))},
    "hippocampus_mri_segan_segmentation": lambda folder: _volumes(folder, (35, 51, 35), 2, 200),
    "brain_mri_adversarial_normalization_segmentation": lambda folder: _volumes(folder, (144, 192, 256), 3, 300),
    "skin_dermoscopy_segan_segmentation": _photographs,
    "pancreas_ct_lsnet_segmentation": lambda folder: _volumes(folder, (512, 512, 32), 1, 100),
}


@contextmanager
def _parser(bundle: str, file: str, **changed: Any) -> Iterator[ConfigParser]:
    configs = TOP / "bundles" / bundle / "configs"
    with tempfile.TemporaryDirectory() as output:
        parser = ConfigParser()
        parser.read_config(configs / file)
        common = {"device": torch.device("cpu"), "amp": False, "output_dir": output, "num_workers": 0, "folds": 2}
        for key, value in {**common, "bundle_root": str(configs.parent), **changed}.items():
            if key in parser:
                parser[key] = value
        parser.parse()
        parser.get_parsed_content("imports")
        yield parser


def _counted(run: Callable[[], Any]) -> tuple[float, int]:
    """Return GFLOP and number of kernels."""
    with FlopCounterMode(display=False) as flops:
        run()
    with _Kernels() as kernels:
        run()
    return flops.get_total_flops() / 1e9, kernels.count


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result and the processor seconds of a second run."""
    run()
    start = time.process_time()
    return run(), time.process_time() - start


def measure_training(bundle: str, data: dict[str, Any]) -> dict[str, float]:
    """Measure the cost of an image in training, in an epoch that trains all networks."""
    with _parser(bundle, "train.json", **data) as parser:
        parser["train#handlers"] = []
        start = time.process_time()
        dataset = parser.get_parsed_content("train#dataset")
        prepare = (time.process_time() - start) / len(dataset)
        loader = parser.get_parsed_content("train#dataloader")
        images, batch = 0, None
        start = time.process_time()
        while time.process_time() - start < 3:
            for batch in loader:
                images += len(batch["image"])
        rate = images / (time.process_time() - start)
        assert batch is not None
        few = {key: value[:2] for key, value in batch.items()}
        trainer = parser.get_parsed_content("train#trainer")
        trainer.state.epoch = trainer.state.max_epochs
        gflop, kernels = _counted(lambda: trainer._iteration(trainer, few))
        networks = [trainer.network, *trainer.adversaries.values()]
        in_volume = parser.get("slices_per_volume", parser.get("patches_per_volume", 1))
        return {
            "GFLOP per image": gflop / len(few["image"]),
            "kernels per step": kernels,
            "MB of gradients": 4 * sum(p.numel() for network in networks for p in network.parameters()) / 1e6,
            "prepare, s per case": prepare,
            "loader, images/s per core": rate,
            "batch": parser.get_parsed_content("batch_size"),
            "images per case": in_volume,
        }


def measure_inference(bundle: str, data: dict[str, Any], depth: int | None) -> dict[str, float]:
    """Measure the cost of a volume in inference; for sliced volumes, ``depth`` times the cost of a slice."""
    with _parser(bundle, "inference.json", **data) as parser:
        case = parser.get_parsed_content("cases")[0]
        before, after = (parser.get_parsed_content(key) for key in ("preprocessing", "postprocessing"))
        network = parser.get_parsed_content("network_def").eval()
        item, read = _timed(lambda: before(case))
        image = item["image"]
        if depth is None:
            size = tuple(parser.get_parsed_content("patch_size"))
            overlap = parser.get_parsed_content("window_overlap")
            step = [max(1, int(n * (1 - overlap))) for n in size]
            parts = len(dense_patch_slices(image.shape[1:], size, step))
            part, share = torch.as_tensor(image)[:, : size[0], : size[1], : size[2]][None], 1.0
        elif depth == 1:
            part, parts, share = torch.as_tensor(image)[None], 1, 1.0
        else:
            axis, share = parser.get_parsed_content("slice_axis") if "slice_axis" in parser else 2, 1.0
            part, parts = torch.as_tensor(image)[None].select(2 + axis, image.shape[1 + axis] // 2), depth
            share = depth / image.shape[1 + axis]
        with torch.inference_mode():
            out = network(torch.as_tensor(part).as_subclass(torch.Tensor))
            gflop, kernels = _counted(lambda: network(torch.as_tensor(part).as_subclass(torch.Tensor)))
        prediction = image.new_full((out.shape[1], *image.shape[1:]), -4.0)
        prediction[(slice(None), *(slice(n // 3, n // 2) for n in image.shape[1:]))] = 4.0
        _, write = _timed(lambda: after({**item, "pred": prediction}))
        return {
            "GFLOP per volume": gflop * parts,
            "kernels per volume": kernels * math.ceil(parts / 16),
            "read, s": read * share,
            "write, s": write * share,
        }


def exchange_seconds(gpus: int, megabytes: float, assumed: Assumed) -> float:
    """Estimate the seconds of a ring all-reduce: each process sends and receives 2 (N - 1) / N times the gradients."""
    rate = assumed.inside if gpus <= 8 else assumed.outside
    return 2 * (gpus - 1) / gpus * megabytes * 1e6 / rate


def network_seconds(row: dict[str, float], assumed: Assumed) -> float:
    """Estimate the seconds of the networks in a training step."""
    arithmetic = row["batch"] * row["GFLOP per image"] * 1e9 / (assumed.peak * assumed.fraction)
    return max(arithmetic, row["kernels per step"] * assumed.launch)


def training_hours(row: dict[str, float], schedule: Schedule, gpus: int, assumed: Assumed) -> tuple[float, str]:
    """Estimate the hours of a training, and name the bottleneck of a step."""
    if gpus > schedule.cases:
        return math.nan, "fewer cases than GPUs"
    batch = row["batch"]
    network = network_seconds(row, assumed)
    exchange = exchange_seconds(gpus, row["MB of gradients"], assumed)
    loader = batch / (assumed.cores * row["loader, images/s per core"])
    steps = math.ceil(math.ceil(schedule.cases / gpus) * row["images per case"] / batch)
    first = math.ceil(schedule.cases / gpus) / assumed.cores * row["prepare, s per case"]
    hours = (first + schedule.epochs * steps * max(loader, network + exchange)) / 3600
    if loader > network + exchange:
        return hours, "loader"
    kernels = network == row["kernels per step"] * assumed.launch
    return hours, "exchange" if exchange > network else "kernels' start" if kernels else "network"


def inference_hours(row: dict[str, float], volumes: int, gpus: int, assumed: Assumed) -> tuple[float, str]:
    """Estimate the hours of inference, and name the bottleneck.

    Other processes read; the process of the network writes.
    """
    arithmetic = row["GFLOP per volume"] * 1e9 / (assumed.peak * assumed.fraction)
    network = max(arithmetic, row["kernels per volume"] * assumed.launch)
    reading = row["read, s"] / max(1, assumed.cores - 1)
    hours = math.ceil(volumes / gpus) * max(reading, network + row["write, s"]) / 3600
    if reading > network + row["write, s"]:
        return hours, "reading"
    return hours, "writing" if row["write, s"] > network else "network"


def cost_model(
    peak_tflops: float = 312.0,
    fraction: float = 0.3,
    launch_microseconds: float = 5.0,
    cores_a_gpu: int = 8,
    inside_gb: float = 100.0,
    outside_gb: float = 12.5,
    volumes: int = 10_000,
    measured: Path | None = None,
    json_file: JsonFile = None,
) -> None:
    """Estimate the hours to train each bundle with the paper's schedule and to infer many volumes, on 1 to 64 GPUs.

    Operations and processor seconds are measured on this machine first; --measured FILE reads them from the JSON of an
    earlier call. The GPUs are assumed: the published bfloat16 peak of an A100, and the fraction of it that is reached.
    """
    assumed = Assumed(
        peak_tflops * 1e12, fraction, launch_microseconds / 1e6, cores_a_gpu, inside_gb * 1e9, outside_gb * 1e9
    )
    found = json.loads(measured.read_text(encoding="utf-8"))["rows"] if measured else []
    for bundle, schedule in SCHEDULES.items():
        if any(row["side"] == bundle for row in found):
            continue
        with tempfile.TemporaryDirectory() as name:
            data = DATA[bundle](Path(name))
            row = {"side": bundle, **measure_training(bundle, data)}
            found.append({**row, **measure_inference(bundle, data, schedule.depth)})
    by_bundle = {row["side"]: row for row in found}
    short = {name: name.removesuffix("_segmentation") for name in SCHEDULES}
    keys = list(found[0])[1:]
    for part in (keys[:7], keys[7:]):
        rows = [{"side": short[row["side"]], **{key: row[key] for key in part}} for row in found]
        report("cost-model: measured here", rows, None)
    if json_file is not None:
        json_file.write_text(json.dumps({"rows": found}, indent=4) + "\n", encoding="utf-8")
    how = f"{peak_tflops:g} TFLOP/s x {fraction:g}, {launch_microseconds:g} us per kernel, {cores_a_gpu} cores per GPU"
    rows: list[dict[str, Any]] = []
    for name in SCHEDULES:
        row, network = by_bundle[name], network_seconds(by_bundle[name], assumed)
        rates = {"network, images/s": row["batch"] / network}
        rates["loader, images/s"] = cores_a_gpu * row["loader, images/s per core"]
        exchange = {"exchange is the limit below, GB/s": 2e-3 * row["MB of gradients"] / network}
        rows.append({"side": short[name], "s per step": network, **rates, **exchange})
    report(f"cost-model: one GPU in training. ASSUMED: {how}", rows, None)
    rows = []
    for name, schedule in SCHEDULES.items():
        rows.append({"side": short[name], "cases x epochs": f"{schedule.cases} x {schedule.epochs}"})
        for gpus in GPUS:
            hours, limit = training_hours(by_bundle[name], schedule, gpus, assumed)
            rows[-1][f"{gpus}"] = "-" if math.isnan(hours) else f"{hours:.3g} {limit}"
    report(f"cost-model: hours of training by number of GPUs, and the limit. ASSUMED: {how}", rows, None)
    rows = []
    for name in SCHEDULES:
        rows.append({"side": short[name]})
        for gpus in GPUS:
            hours, limit = inference_hours(by_bundle[name], volumes, gpus, assumed)
            rows[-1][f"{gpus}"] = f"{hours:.3g} {limit}"
    report(f"cost-model: hours to infer {volumes:,} volumes by number of GPUs. ASSUMED: {how}", rows, None)
