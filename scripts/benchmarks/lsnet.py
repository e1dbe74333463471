# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Inference with L-SNet."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.tables import Device, JsonFile, Rounds, by_turns, report
from segan_monai.networks import CoarseLocalizer, LocalizationNet, LSNet, ResNetSegmentor, RoIs


def rois(
    rounds: Rounds = 3,
    size: int = 512,
    network_size: int = 0,
    slices: int = 200,
    with_organ: float = 0.4,
    base_channels: int = 64,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Time L-SNet and the coarse-to-fine baseline on a CT volume, with the same backbones (ResNet-18 and 34).

    The first stages are untrained, so their output is replaced by the same RoIs for both: one in each slice with the
    organ. With --network-size 128, both stages see 128x128 pixels, and RoIs are cut from the full planes.
    """
    sizes = {"localizer_size": [network_size] * 2, "roi_size": [network_size] * 2} if network_size else {}
    volume = torch.rand(slices, 1, size, size, device=device)
    organ = range(round(with_organ * slices))
    segmentor = ResNetSegmentor(1, 1, 34, base_channels)
    first_stages = {
        "coarse-to-fine U-Net": CoarseLocalizer(ResNetSegmentor(1, 1, 18, base_channels)),
        "L-SNet (U-Net)": LocalizationNet(1, 1, 18, base_channels),
    }
    segmented = dict.fromkeys(first_stages, 0)

    def side(name: str, localizer: torch.nn.Module) -> Callable[[], None]:
        network = LSNet(localizer, segmentor, 1, hard_crop=name.startswith("coarse"), **sizes).eval().to(device)

        @torch.inference_mode()
        def run() -> None:
            segmented[name] = 0
            for start in range(0, slices, 16):
                chunk = volume[start : start + 16]
                network.locate(chunk)
                index = torch.tensor([i for i in range(len(chunk)) if start + i in organ], dtype=torch.long)
                centre, half = torch.full((len(index), 2), size / 2), torch.full((len(index), 4), size / 12)
                rois = RoIs(index, torch.zeros_like(index), centre, half, torch.ones(len(index)))
                network(chunk, RoIs(*(part.to(device) for part in rois)))
                segmented[name] += len(index)

        return run

    seconds = by_turns({name: side(name, localizer) for name, localizer in first_stages.items()}, rounds)
    rows = [
        {
            "side": name,
            "seconds": seconds[name],
            "ratio": seconds["coarse-to-fine U-Net"] / seconds[name],
            "first stage M": sum(p.numel() for p in first_stages[name].parameters()) / 1e6,
            "RoIs": segmented[name],
        }
        for name in first_stages
    ]
    seen = network_size or size
    title = f"Inference of {size}x{size}x{slices}, networks see {seen}x{seen}, base {base_channels}"
    report(f"{title}, organ in {len(organ)} slices", rows, json_file)
