# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Inference of volumes slice by slice."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable

import torch
from monai.inferers import SliceInferer
from monai.losses import DiceLoss

from benchmarks.convolutions import convolutions, rates
from benchmarks.segan import as_written, paper_networks
from benchmarks.tables import JsonFile, ProcessorTime, Rounds, by_turns, report
from segan_monai.inferers import VolumeSliceInferer
from segan_monai.networks import SegANSegmentor
from segan_monai.simulation.phantom import make_phantom
from segan_monai.transforms import scale_foreground


def trained_on_phantom(iterations: int) -> tuple[SegANSegmentor, torch.Tensor]:
    """Return a base 64 segmentor trained on a simulated case, and the case (1, 3, 240, 240, 155)."""
    phantom = make_phantom(seed=1, spacing_mm=1.0)
    image = torch.stack([torch.as_tensor(phantom.images[name]).float() for name in ("t1c", "t2", "flair")])
    image = scale_foreground(image)
    label = torch.as_tensor(phantom.label)
    tumour = torch.nonzero((label > 0).flatten(0, 1).any(0)).flatten()
    segmentor = paper_networks()[0].to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(segmentor.parameters(), lr=1e-3)
    loss = DiceLoss(sigmoid=True, squared_pred=True, batch=True)
    for _ in range(iterations):
        index = tumour[torch.randint(len(tumour), (4,))]
        x = image[..., index].movedim(-1, 0)[:, :, 20:-20, 20:-20].contiguous(memory_format=torch.channels_last)
        y = label[..., index].movedim(-1, 0)[:, None, 20:-20, 20:-20]
        target = torch.cat([y > 0, (y > 0) & (y != 2), y == y.max()], dim=1).float()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = segmentor(x)
        loss(logits.float(), target).backward()
        optimizer.step()
    return segmentor.eval(), image[None]


def fraction(
    run: Callable[[], None], network: torch.nn.Module, dtype: torch.dtype, processor_time: bool
) -> list[float]:
    """Return the seconds of a run's convolutions, all at the peak rate, and each at its individual rate."""
    needed = Counter(convolutions(network, run))
    rate = rates(needed, "cpu", dtype, 2, processor_time)
    gflop = sum(c.gflop * times for c, times in needed.items())
    return [gflop / max(rate.values()), sum(c.gflop * times / rate[c] for c, times in needed.items())]


def inference(
    rounds: Rounds = 3,
    training_iterations: int = 60,
    slices: int = 155,
    processor_time: ProcessorTime = False,
    json_file: JsonFile = None,
) -> None:
    """Time MONAI's SliceInferer (160x160 windows) and ours, base 64, on a 240x240x155x3 volume or its middle slices."""
    segmentor, volume = trained_on_phantom(training_iterations)
    volume = volume[..., (155 - slices) // 2 :][..., :slices].contiguous()
    plain = paper_networks()[0].eval()
    plain.load_state_dict(segmentor.state_dict())
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
    }
    seconds = by_turns(sides, rounds, processor_time)
    limits = {
        name: fraction(
            run,
            plain if name == "MONAI SliceInferer" else segmentor,
            torch.bfloat16 if name == "bfloat16" else torch.float32,
            processor_time,
        )
        for name, run in sides.items()
    }
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
        }
        for name, s in seconds.items()
    ]
    share = f"tumour voxels predicted {reference.any(0).sum():,}, {brain.sum():,} brain voxels"
    report(f"inference: 240x240x{slices}x3, base 64, weights trained on a simulated case; {share}", rows, json_file)
