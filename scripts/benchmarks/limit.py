# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Speed of SegAN relative to the limit set by the convolutions on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.convolutions import Convolution, matrix_rate, needs_by_part, rates
from benchmarks.segan import make_batch, our_step
from benchmarks.tables import BaseChannels, Device, JsonFile, ProcessorTime, Rounds, by_turns, report
from segan_monai.engines import SegANTrainer

Compile = Annotated[str | None, typer.Option(help="backend of torch.compile, such as inductor, or graphs")]


def parts_of(trainer: SegANTrainer, batch: dict[str, Tensor]) -> dict[str, Callable[[], object]]:
    """Return functions that run each part of an iteration, and the whole; backward parts include the forward pass."""
    image, label = trainer.prepare(batch)
    trainer.network.train()
    trainer.critic.train()

    def forward() -> Tensor:
        with trainer.autocast():
            return trainer.inferer(image, trainer.network)

    with torch.no_grad():
        logits = forward()
    prediction = logits.sigmoid()
    (part,) = trainer.split(image, label)

    def critic_sees() -> None:
        trainer.distance_for_segmentor(image, prediction.detach().requires_grad_(), label).backward()

    return {
        "S forward": forward,
        "S both": lambda: forward().backward(logits),
        "C's step": lambda: trainer._step_critic([(part, (None, prediction))]),
        "C in S's step": critic_sees,
        "iteration": lambda: trainer._iteration(trainer, batch),
    }


def fractions(
    parts: dict[str, Counter[Convolution]],
    seconds: dict[str, float],
    executed: dict[str, float],
    rate: dict[Convolution, float],
) -> list[dict[str, object]]:
    """Return a table with the operations and time of each part, and its speed as fractions of the two limits."""
    peak = max(rate.values())
    rows: list[dict[str, object]] = []
    for name, counted in parts.items():
        gflop = sum(c.gflop * n for c, n in counted.items())
        own = sum(c.gflop * n / rate[c] for c, n in counted.items())
        rows.append(
            {
                "side": name,
                "GFLOP": gflop,
                "executed": executed[name],
                "seconds": seconds[name],
                "s at peak": gflop / peak,
                "s at own rates": own,
                "of peak": gflop / peak / seconds[name],
                "of own rates": own / seconds[name],
                "executed, of peak": executed[name] / peak / seconds[name],
            }
        )
    return rows


def flop_of(run: Callable[[], object]) -> float:
    """Count the GFLOP executed by convolutions and matrix products."""
    with FlopCounterMode(display=False) as flops:
        run()
    return flops.get_total_flops() / 1e9


def write_limit(
    trainer: SegANTrainer,
    batch: dict[str, Tensor],
    rounds: int,
    device: str,
    dtype: torch.dtype,
    processor_time: bool,
    json_file: Path | None,
) -> None:
    """Measure the limit and the parts of a trainer, and print both tables."""
    runs = parts_of(trainer, batch)
    executed = {name: flop_of(run) for name, run in runs.items()}
    seconds = by_turns(runs, rounds, processor_time)
    for table in (executed, seconds):
        table["S backward"] = table.pop("S both") - table["S forward"]
    image, label = trainer.prepare(batch)
    needed = needs_by_part(trainer, image, label)
    needed["iteration"] = sum(needed.values(), Counter())
    rate = rates(needed["iteration"], device, dtype, rounds, processor_time)
    kind = str(dtype).removeprefix("torch.")
    layers: list[dict[str, object]] = [
        {
            "side": f"{c.shape[1]} to {c.out_channels}, {c.kernel}x{c.kernel}, stride {c.stride}, {c.what}",
            "plane": f"{c.shape[2]}x{c.shape[3]}",
            "times": times,
            "GFLOP": c.gflop,
            "GFLOP/s": rate[c],
        }
        for c, times in needed["iteration"].items()
    ]
    matrix = matrix_rate(device, dtype, processor_time)
    title = f"limit, {kind}: the convolutions of an iteration; one large matrix product: {matrix:.4g} GFLOP/s"
    report(title, layers, json_file and json_file.with_stem(f"{json_file.stem}_{kind}_convolutions"))
    title = f"limit, {kind}: peak of these convolutions {max(rate.values()):.4g} GFLOP/s"
    rows = fractions(needed, seconds, executed, rate)
    report(title, rows, json_file and json_file.with_stem(f"{json_file.stem}_{kind}"))


def limit(
    rounds: Rounds = 5,
    batch_size: int = 8,
    base_channels: BaseChannels = 64,
    device: Device = "cpu",
    compile: Compile = None,
    processor_time: ProcessorTime = False,
    json_file: JsonFile = None,
) -> None:
    """Time the parts of a SegAN iteration, relative to the same convolutions alone (base 64, 160x160)."""
    for amp in (False, True):
        dtype = torch.bfloat16 if amp else torch.float32
        batch = make_batch(batch_size)
        trainer, _ = our_step(batch, amp, device, compile, base_channels)
        write_limit(trainer, batch, rounds, device, dtype, processor_time, json_file)
