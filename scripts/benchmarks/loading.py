# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What the training waits for: its data."""

from __future__ import annotations

import time

import torch
from monai.data import CacheDataset, DataLoader

from benchmarks.segan import make_batch, our_step
from benchmarks.tables import JsonFile, by_turns, report
from segan_monai.data.phantom import make_phantom
from segan_monai.transforms import RandSlicesd, SlicesWithContentd, scale_foreground


def data(volumes: int = 4, workers: int = 0, batch_size: int = 8, json_file: JsonFile = None) -> None:
    """Slices per second of the training loader against what a training step consumes."""
    phantom = make_phantom(seed=1, spacing_mm=1.0)
    image = torch.stack([torch.as_tensor(phantom.images[name]).float() for name in ("t1c", "t2", "flair")])
    label = torch.stack([torch.as_tensor(phantom.label > 0)] * 3).to(torch.uint8)
    cases = [{"image": scale_foreground(image), "label": label} for _ in range(volumes)]
    keys = ["image", "label"]
    transforms = [SlicesWithContentd(keys), RandSlicesd(keys, "label", num_samples=8, roi_size=(160, 160))]
    dataset = CacheDataset(cases, transforms, progress=False)
    loader = DataLoader(dataset, batch_size=max(1, batch_size // 8), shuffle=True, num_workers=workers)

    def epochs() -> int:
        return sum(len(batch["image"]) for _ in range(10) for batch in loader)

    step_seconds = by_turns({"step": our_step(make_batch(batch_size), amp=True)[1]}, 3)["step"]
    start = time.perf_counter()
    slices = epochs()
    rate, need = slices / (time.perf_counter() - start), batch_size / step_seconds
    rows = [
        {"side": f"loader, {workers} workers", "slices/s": rate, "ratio": rate / need},
        {"side": "training step, bfloat16", "slices/s": need, "ratio": 1.0},
    ]
    report(f"data: 160x160 slices of cached 240x240x155x3 volumes, 8 a volume, batch {batch_size}", rows, json_file)
