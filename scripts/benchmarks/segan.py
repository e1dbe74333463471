# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Training steps of SegAN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.losses import DiceLoss
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tables import JsonFile, Rounds, by_turns, report
from segan_monai.engines import SegANTrainer
from segan_monai.losses import MultiScaleL1Loss
from segan_monai.networks import SegANCritics, SegANSegmentor, SegANSegmentors


def convolution_peak(dtype: torch.dtype) -> float:
    """GFLOP/s of the fastest of the segmentor's larger convolutions, at its best memory format."""
    best = 0.0
    for in_channels, out_channels, size, kernel, stride in ((256, 128, 40, 3, 1), (128, 256, 40, 4, 2)):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            conv = torch.nn.Conv2d(in_channels, out_channels, kernel, stride, padding=1, dtype=dtype)
            conv = conv.to(memory_format=memory_format)
            x = torch.rand(8, in_channels, size, size).to(dtype).contiguous(memory_format=memory_format)
            with torch.no_grad(), FlopCounterMode(display=False) as flops:
                conv(x)
            with torch.no_grad():
                seconds = min(by_turns({"conv": lambda conv=conv, x=x: conv(x)}, 1)["conv"] for _ in range(20))
            best = max(best, flops.get_total_flops() / seconds / 1e9)
    return best


def players() -> tuple[SegANSegmentor, SegANCritics]:
    """Return the networks of the paper: base 64, three modalities, three classes."""
    torch.manual_seed(0)
    return SegANSegmentor(3, 3), SegANCritics(3, 3)


def literal_step(batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    """One iteration as the paper writes it: two segmentor passes, gradients into everything, default memory format."""
    segmentor, critic = players()
    loss = MultiScaleL1Loss()
    optimizer = torch.optim.RMSprop(segmentor.parameters(), lr=2e-5)
    critic_optimizer = torch.optim.RMSprop(critic.parameters(), lr=2e-5)

    def run() -> None:
        image, label = batch["image"], batch["label"]
        for sign, player in ((-1, critic_optimizer), (1, optimizer)):
            segmentor.zero_grad()
            critic.zero_grad()
            prediction = segmentor(image).sigmoid()
            (sign * loss(critic(image, prediction), critic(image, label))).backward()
            player.step()
            if sign < 0:
                for parameter in critic.parameters():
                    parameter.data.clamp_(-0.01, 0.01)

    return run


def our_step(
    batch: dict[str, torch.Tensor], amp: bool, device: str = "cpu", compiled: bool = False
) -> tuple[SegANTrainer, Callable[[], None]]:
    """One iteration of the trainer."""
    segmentor, critic = (player.to(device) for player in players())
    trainer = SegANTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=[batch],
        network=segmentor,
        optimizer=torch.optim.RMSprop(segmentor.parameters(), lr=2e-5),
        critic=critic,
        critic_optimizer=torch.optim.RMSprop(critic.parameters(), lr=2e-5),
        loss_function=MultiScaleL1Loss(),
        amp=amp,
        compile=compiled,
    )
    trainer.state.epoch = 1
    return trainer, lambda: trainer._iteration(trainer, batch)


def make_batch(size: int) -> dict[str, torch.Tensor]:
    """Return a batch of 160x160 slices."""
    torch.manual_seed(0)
    return {"image": torch.rand(size, 3, 160, 160), "label": (torch.rand(size, 3, 160, 160) > 0.5).float()}


def train_step(rounds: Rounds = 7, batch_size: int = 8, json_file: JsonFile = None) -> None:
    """One SegAN iteration at the paper's size (base 64, 160x160, K = 3, three critics), literal and ours."""
    batch = make_batch(batch_size)
    trainer, float32 = our_step(batch, amp=False)
    _, bfloat16 = our_step(batch, amp=True)
    with FlopCounterMode(display=False) as flops:
        trainer._iteration(trainer, batch)
    gflop = flops.get_total_flops() / 1e9
    seconds = by_turns({"literal": literal_step(batch), "float32": float32, "bfloat16": bfloat16}, rounds)
    peaks = {"float32": convolution_peak(torch.float32), "bfloat16": convolution_peak(torch.bfloat16)}
    peaks["literal"] = peaks["float32"]
    rows = [
        {
            "side": name,
            "seconds": s,
            "ratio": seconds["literal"] / s,
            "GFLOP": gflop if name != "literal" else float("nan"),
            "GFLOP/s": gflop / s,
            "peak GFLOP/s": peaks[name],
            "fraction of peak": gflop / s / peaks[name],
        }
        for name, s in seconds.items()
    ]
    title = f"train-step: batch {batch_size}, base 64, 160x160, K = 3; unavoidable arithmetic of an iteration"
    report(title, rows, json_file)


def iteration_of(variant: str, classes: int, light: bool, size: int, batch_size: int) -> tuple[Callable[[], Any], int]:
    """One iteration of a variant of SegAN for K classes, or of the U-Net, at base 32; and the number of parameters."""
    torch.manual_seed(0)
    label = (torch.rand(batch_size, classes, size, size) > 0.5).float()
    batch = {"image": torch.rand(batch_size, 3, size, size), "label": label}
    segmentor = (SegANSegmentors if variant == "S1-1C" else SegANSegmentor)(3, classes, base_channels=32)
    critic = SegANCritics(3, classes, 16 if light else 32, norm=not light, joint=variant == "S3-1C")
    layers = {"S3-3C-s0": [0], "S3-3C-s3": [3]}.get(variant)
    unet = variant == "U-Net"
    trainer = SegANTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch],
        network=segmentor,
        optimizer=torch.optim.Adam(segmentor.parameters()),
        critic=critic,
        critic_optimizer=torch.optim.Adam(critic.parameters()),
        loss_function=MultiScaleL1Loss(layers),
        adversarial_weight=0.0 if unet else 1.0,
        supervised_loss=DiceLoss(sigmoid=True, squared_pred=True, batch=True),
        supervised_weight=1.0 if unet or light else 0.0,
    )

    trainer.state.epoch = 1
    networks = [segmentor] if unet else [segmentor, critic]
    return lambda: trainer._iteration(trainer, batch), sum(
        p.numel() for network in networks for p in network.parameters()
    )


def classes(rounds: Rounds = 5, size: int = 96, batch_size: int = 8, json_file: JsonFile = None) -> None:
    """What K = 1, 2, 3, 8 classes cost in each variant, with the paper's critics and with the bundles' light ones."""
    variants = ["S1-1C", "S3-1C", "S3-3C", "S3-3C-s0", "S3-3C-s3", "U-Net"]
    sides, parameters = {}, {}
    for name in variants:
        for light in (False, True) if name != "U-Net" else (True,):
            for k in (1, 2, 3, 8):
                side = name, "bundles'" if light else "paper's", k
                sides[side], parameters[side] = iteration_of(name, k, light, size, batch_size)
    seconds = by_turns(sides, rounds)
    rows: list[dict[str, Any]] = []
    for name, critics, k in sides:
        if k == 1:
            rows.append({"side": name, "critics": critics if name != "U-Net" else "none"})
        rows[-1][f"s, K={k}"] = seconds[name, critics, k]
        rows[-1][f"M, K={k}"] = parameters[name, critics, k] / 1e6
    report(f"classes: s an iteration and M parameters; base 32, batch {batch_size}, {size}x{size}", rows, json_file)
