# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Training steps of SegAN."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from monai.losses import DiceLoss

from benchmarks.convolutions import needs_by_part, rates
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
from segan_monai.engines import SegANTrainer
from segan_monai.losses import MultiScaleL1Loss
from segan_monai.networks import SegANCritics, SegANSegmentor, SegANSegmentors
from segan_monai.networks.upsampled_convolution import UpsampledConv2d


def paper_networks(base_channels: int = 64) -> tuple[SegANSegmentor, SegANCritics]:
    """Return the networks of the paper: base 64, three modalities, three classes."""
    torch.manual_seed(0)
    return SegANSegmentor(3, 3, base_channels), SegANCritics(3, 3, base_channels)


def as_written(segmentor: SegANSegmentor) -> SegANSegmentor:
    """Make the decoder upsample, then convolve, as written in the paper."""
    for layer in segmentor.modules():
        if isinstance(layer, UpsampledConv2d):
            layer.forward = layer.as_written  # type: ignore[method-assign]
    return segmentor


def plain_l1(features: list[list[torch.Tensor]], others: list[list[torch.Tensor]]) -> torch.Tensor:
    """Return the multi-scale L1 loss, computed by plain autograd operations."""
    distances = [(u - v).abs().mean() for a, b in zip(features, others, strict=True) for u, v in zip(a, b, strict=True)]
    return torch.stack(distances).mean()


def literal_step(
    batch: dict[str, torch.Tensor], device: str = "cpu", amp: bool = False, base_channels: int = 64
) -> Callable[[], None]:
    """Return an iteration as in the paper: two segmentor passes, all gradients, default memory format."""
    segmentor, critic = (network.to(device) for network in paper_networks(base_channels))
    segmentor = as_written(segmentor)
    optimizer = torch.optim.RMSprop(segmentor.parameters(), lr=2e-5)
    critic_optimizer = torch.optim.RMSprop(critic.parameters(), lr=2e-5)

    def run() -> None:
        image, label = batch["image"].to(device), batch["label"].to(device)
        for sign, current in ((-1, critic_optimizer), (1, optimizer)):
            segmentor.zero_grad()
            critic.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=amp):
                prediction = segmentor(image).sigmoid()
                distance = plain_l1(critic(image, prediction), critic(image, label))
            (sign * distance).backward()
            current.step()
            if sign < 0:
                for parameter in critic.parameters():
                    parameter.data.clamp_(-0.01, 0.01)

    return run


def trainer_step(
    batch: dict[str, torch.Tensor],
    segmentor: torch.nn.Module,
    critic: torch.nn.Module,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    **settings: Any,
) -> tuple[SegANTrainer, Callable[[], Any]]:
    """One iteration of the trainer on a batch, by its settings."""
    trainer = SegANTrainer(
        max_epochs=1,
        train_data_loader=[batch],
        network=segmentor,
        optimizer=optimizer(segmentor.parameters()),
        critic=critic,
        critic_optimizer=optimizer(critic.parameters()),
        **{"device": "cpu", "loss_function": MultiScaleL1Loss(), **settings},
    )
    # not the first iteration of an epoch, which also measures the layers
    trainer.state.epoch, trainer.state.iteration, trainer.state.epoch_length = 1, 2, 100
    return trainer, lambda: trainer._iteration(trainer, batch)


def our_step(
    batch: dict[str, torch.Tensor],
    amp: bool,
    device: str = "cpu",
    compile: str | None = None,
    base_channels: int = 64,
) -> tuple[SegANTrainer, Callable[[], None]]:
    """Return the trainer with the paper's networks and optimizer, and one iteration of it."""
    segmentor, critic = (network.to(device) for network in paper_networks(base_channels))
    optimizer = functools.partial(torch.optim.RMSprop, lr=2e-5)
    return trainer_step(batch, segmentor, critic, optimizer, device=device, amp=amp, compile=compile)


def make_batch(size: int) -> dict[str, torch.Tensor]:
    """Return a batch of 160x160 slices."""
    torch.manual_seed(0)
    return {"image": torch.rand(size, 3, 160, 160), "label": (torch.rand(size, 3, 160, 160) > 0.5).float()}


def train_step(
    rounds: Rounds = 7,
    batch_size: int = 8,
    base_channels: BaseChannels = 64,
    device: Device = "cpu",
    compile: Compilers = None,
    processor_time: ProcessorTime = False,
    json_file: JsonFile = None,
) -> None:
    """Time a SegAN iteration at the paper's size (base 64, 160x160, K = 3, three critics), literal and ours."""
    batch = {name: tensor.to(device) for name, tensor in make_batch(batch_size).items()}
    trainer, float32 = our_step(batch, False, device, None, base_channels)
    sides: dict[str, Callable[[], Any]] = {
        "literal": literal_step(batch, device, False, base_channels),
        "float32": float32,
    }
    if device != "cpu":
        sides["literal, bfloat16"] = literal_step(batch, device, True, base_channels)
    sides["bfloat16"] = our_step(batch, True, device, None, base_channels)[1]
    sides |= {f"bfloat16, {name}": our_step(batch, True, device, name, base_channels)[1] for name in compile or ()}
    seconds = by_turns(sides, rounds, processor_time, warm_up=3 if compile else 1)
    memory = {name: device_gib(run) for name, run in sides.items()}
    needed = sum(needs_by_part(trainer, batch["image"], batch["label"]).values(), Counter())
    gflop = sum(c.gflop * times for c, times in needed.items())
    rate = {dtype: rates(needed, device, dtype, 3, processor_time) for dtype in (torch.float32, torch.bfloat16)}
    rows = []
    for name, s in seconds.items():
        own = rate[torch.bfloat16 if "bfloat16" in name else torch.float32]
        rows.append(
            {
                "side": name,
                "seconds": s,
                "ratio": seconds["literal"] / s,
                "GFLOP/s": gflop / s,
                "peak GFLOP/s": max(own.values()),
                "of peak": gflop / s / max(own.values()),
                "of own rates": sum(c.gflop * times / own[c] for c, times in needed.items()) / s,
                **({} if device == "cpu" else {"images/s": batch_size / s, "GPU GiB": memory[name]}),
            }
        )
    title = (
        f"train-step: batch {batch_size}, base {base_channels}, 160x160, K = 3; {gflop:.4g} GFLOP required as written"
    )
    report(title, rows, json_file)


def grouped(critics: SegANCritics) -> SegANCritics:
    """Combine critics into one network with grouped convolutions, one group per class."""
    one = SegANCritics(3, len(critics.critics), 64 * len(critics.critics), joint=True)
    for index, block in enumerate(one.critics[0].encoder):
        blocks = [critic.encoder[index] for critic in critics.critics]
        convolution = blocks[0][0]
        size = len(blocks) * convolution.in_channels, len(blocks) * convolution.out_channels
        block[0] = torch.nn.Conv2d(*size, 4, 2, 1, groups=len(blocks), bias=convolution.bias is not None)
        with torch.no_grad():
            for name, parameter in block.named_parameters():
                parameter.copy_(torch.cat([dict(each.named_parameters())[name] for each in blocks]))
    return one


def critics(
    rounds: Rounds = 5,
    batch_size: int = 8,
    processor_time: ProcessorTime = False,
    device: str = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Time two forward and backward passes of three critics, one after the other and as groups of one network."""
    batch = {name: tensor.to(device) for name, tensor in make_batch(batch_size).items()}
    image = batch["image"].to(memory_format=torch.channels_last)
    prediction = torch.rand_like(batch["label"])
    separate = paper_networks()[1].to(device)
    networks = {"one after the other": separate, "groups of one network": grouped(separate).to(device)}
    loss, losses = MultiScaleL1Loss(), {}

    def run(side: tuple[str, str], network: torch.nn.Module) -> None:
        network.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=side[1] == "bfloat16"):
            value = loss(network(image, prediction), network(image, batch["label"]))
        value.backward()
        losses[side] = value.item()  # on a GPU, waits for it

    sides = {
        (name, dtype): functools.partial(run, (name, dtype), network.to(memory_format=torch.channels_last))
        for name, network in networks.items()
        for dtype in ("float32", "bfloat16")
    }
    seconds = by_turns(sides, rounds, processor_time)
    rows = [
        {
            "side": name,
            "dtype": dtype,
            "seconds": s,
            "ratio": seconds["one after the other", dtype] / s,
            "loss": losses[name, dtype],
        }
        for (name, dtype), s in seconds.items()
    ]
    report(f"critics: batch {batch_size}, base 64, 160x160, K = 3", rows, json_file)


def iteration_of(variant: str, classes: int, light: bool, size: int, batch_size: int) -> tuple[Callable[[], Any], int]:
    """Return an iteration of a SegAN variant or of the U-Net for K classes at base 32, and the parameter count."""
    torch.manual_seed(0)
    label = (torch.rand(batch_size, classes, size, size) > 0.5).float()
    batch = {"image": torch.rand(batch_size, 3, size, size), "label": label}
    segmentor = (SegANSegmentors if variant == "S1-1C" else SegANSegmentor)(3, classes, base_channels=32)
    critic = SegANCritics(3, classes, 16 if light else 32, norm=not light, joint=variant == "S3-1C")
    layers = {"S3-3C-s0": [0], "S3-3C-s3": [3]}.get(variant)
    unet = variant == "U-Net"
    _, step = trainer_step(
        batch,
        segmentor,
        critic,
        loss_function=MultiScaleL1Loss(layers),
        adversarial_weight=0.0 if unet else 1.0,
        supervised_loss=DiceLoss(sigmoid=True, squared_pred=True, batch=True),
        supervised_weight=1.0 if unet or light else 0.0,
    )
    networks = [segmentor] if unet else [segmentor, critic]
    return step, sum(p.numel() for network in networks for p in network.parameters())


def classes(rounds: Rounds = 5, size: int = 96, batch_size: int = 8, json_file: JsonFile = None) -> None:
    """Time each variant for K = 1, 2, 3, 8 classes, with the paper's critics and with the bundles' light ones."""
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
    report(f"classes: s per iteration and M parameters; base 32, batch {batch_size}, {size}x{size}", rows, json_file)
