# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Inference of volumes slice by slice."""

from __future__ import annotations

import copy
import resource
from collections import Counter
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from monai.inferers import SliceInferer
from monai.losses import DiceLoss

from benchmarks.convolutions import convolutions, rates
from benchmarks.segan import as_written, paper_networks
from benchmarks.tables import (
    BaseChannels,
    Compilers,
    Device,
    JsonFile,
    ProcessorTime,
    Rounds,
    by_turns,
    device_gib,
    report,
)
from segan_monai.engines.compiling import compile_settings
from segan_monai.inferers import VolumeSliceInferer
from segan_monai.networks import SegANSegmentor
from segan_monai.simulation.phantom import make_phantom
from segan_monai.transforms import scale_foreground


def simulated_case() -> tuple[torch.Tensor, torch.Tensor]:
    """Return image (3, 240, 240, 155) and label (240, 240, 155) of a simulated case."""
    phantom = make_phantom(seed=1, spacing_mm=1.0)
    image = torch.stack([torch.as_tensor(phantom.images[name]).float() for name in ("t1c", "t2", "flair")])
    return scale_foreground(image), torch.as_tensor(phantom.label)


def ellipsoid() -> tuple[torch.Tensor, torch.Tensor]:
    """Return image and label of the same shapes: an ellipsoid of a brain's size, and balls in it."""
    x, y, z = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (240, 240, 155)), indexing="ij")
    brain = (x / 0.6) ** 2 + (y / 0.75) ** 2 + (z / 0.9) ** 2 < 1
    distance = ((x - 0.2) ** 2 + (y - 0.2) ** 2 + z**2).sqrt()
    label = (distance < 0.3).int() + (distance < 0.2).int() + (distance < 0.1).int()
    torch.manual_seed(0)
    return (torch.rand(3, 240, 240, 155) + label) * brain, label


def trained_on(
    image: torch.Tensor, label: torch.Tensor, iterations: int, device: str = "cpu", base_channels: int = 64
) -> SegANSegmentor:
    """Return a segmentor trained on a case."""
    tumour = torch.nonzero((label > 0).flatten(0, 1).any(0)).flatten()
    segmentor = paper_networks(base_channels)[0].to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(segmentor.parameters(), lr=1e-3)
    loss = DiceLoss(sigmoid=True, squared_pred=True, batch=True)
    for _ in range(iterations):
        index = tumour[torch.randint(len(tumour), (4,))]
        x = image[..., index].movedim(-1, 0)[:, :, 20:-20, 20:-20].contiguous(memory_format=torch.channels_last)
        y = label[..., index].movedim(-1, 0)[:, None, 20:-20, 20:-20]
        target = torch.cat([y > 0, (y > 0) & (y != 2), y == y.max()], dim=1).float()
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            logits = segmentor(x.to(device))
        loss(logits.float(), target.to(device)).backward()
        optimizer.step()
    return segmentor.eval()


def fraction(
    run: Callable[[], None], network: torch.nn.Module, dtype: torch.dtype, processor_time: bool, device: str = "cpu"
) -> list[float]:
    """Return the seconds of a run's convolutions, all at the peak rate, and each at its individual rate."""
    needed = Counter(convolutions(network, run))
    rate = rates(needed, device, dtype, 2, processor_time)
    gflop = sum(c.gflop * times for c, times in needed.items())
    return [gflop / max(rate.values()), sum(c.gflop * times / rate[c] for c, times in needed.items())]


def graphs_of(network: torch.nn.Module, volumes: int, device: str) -> int:
    """Count the compilations that volumes with brains of different sizes need, four slices each."""
    stats = torch._dynamo.utils.counters["stats"]
    before = stats["unique_graphs"]
    inferer = VolumeSliceInferer(amp=True)
    with torch.inference_mode():
        for rows, columns in torch.randint(130, 190, (volumes, 2)).tolist():
            volume = torch.zeros(1, 3, 240, 240, 4, device=device)
            volume[:, :, 20 : 20 + rows, 20 : 20 + columns] = 1
            inferer(volume, network)
    return stats["unique_graphs"] - before


def inference(
    rounds: Rounds = 3,
    training_iterations: int = 60,
    slices: int = 155,
    base_channels: BaseChannels = 64,
    without_brain: Annotated[bool, typer.Option(help="an ellipsoid instead of the brain that nilearn ships")] = False,
    device: Device = "cpu",
    compile: Compilers = None,
    volumes: int = 500,
    processor_time: ProcessorTime = False,
    json_file: JsonFile = None,
) -> None:
    """Time MONAI's SliceInferer (160x160 windows) and ours, base 64, on a 240x240x155x3 volume or its middle slices.

    Compiled networks also segment so many volumes of different sizes; the table has the number of compilations.
    """
    image, label = ellipsoid() if without_brain else simulated_case()
    segmentor = trained_on(image, label, training_iterations, device, base_channels)
    volume = image[None, ..., (155 - slices) // 2 :][..., :slices].contiguous().to(device)
    plain = paper_networks(base_channels)[0].eval().to(device)
    plain.load_state_dict(segmentor.state_dict())
    compiled = {f"bfloat16, {name}": copy.deepcopy(segmentor) for name in compile or ()}
    for name, network in zip(compile or (), compiled.values(), strict=True):
        network.compile(**compile_settings(name, torch.device(device)))
    plain = as_written(plain).to(memory_format=torch.contiguous_format)
    theirs = SliceInferer(roi_size=(160, 160), sw_batch_size=16, spatial_dim=2, overlap=0.25)
    results: dict[str, torch.Tensor] = {}
    peak: dict[str, float] = {}

    def side(name: str, inferer: Callable[..., torch.Tensor], network: torch.nn.Module) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                results[name] = inferer(volume, network)
            peak.setdefault(name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)

        return run

    sides = {
        "float32": side("float32", VolumeSliceInferer(), segmentor),
        "bfloat16": side("bfloat16", VolumeSliceInferer(amp=True), segmentor),
        "float32, empty voxels too": side("float32, empty voxels too", VolumeSliceInferer(skip_empty=False), segmentor),
        "MONAI SliceInferer": side("MONAI SliceInferer", theirs, plain),
        **{name: side(name, VolumeSliceInferer(amp=True), network) for name, network in compiled.items()},
    }
    seconds = by_turns(sides, rounds, processor_time, warm_up=3 if compile else 1)
    if device != "cpu":
        peak = {name: device_gib(run) for name, run in sides.items()}
    limits = {
        name: fraction(
            run,
            plain if name == "MONAI SliceInferer" else segmentor,
            torch.bfloat16 if "bfloat16" in name else torch.float32,
            processor_time,
            device,
        )
        for name, run in sides.items()
        if name not in compiled
    }
    limits |= dict.fromkeys(compiled, limits["bfloat16"])
    brain = (volume[0] != 0).any(0)
    reference = results["MONAI SliceInferer"][0] > 0
    rows = [
        {
            "side": name,
            "seconds": s,
            "ratio": seconds["MONAI SliceInferer"] / s,
            "of peak": limits[name][0] / s,
            "of own rates": limits[name][1] / s,
            "same label": f"{((results[name][0] > 0) == reference).all(0)[brain].double().mean():.4%}",
            "peak memory GiB": peak[name],
            **(
                {"compilations": graphs_of(compiled[name], volumes, device) if name in compiled else 0}
                if compile
                else {}
            ),
        }
        for name, s in seconds.items()
    ]
    share = f"tumour voxels predicted {reference.any(0).sum():,}, {brain.sum():,} brain voxels"
    report(
        f"inference: 240x240x{slices}x3, base {base_channels}, weights trained on a simulated case; {share}",
        rows,
        json_file,
    )
