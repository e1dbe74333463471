# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""How near SegAN comes to what this machine's convolutions allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tables import JsonFile, ProcessorTime, Rounds, by_turns, report
from segan_monai.engines import SegANTrainer
from segan_monai.networks.upsampled_convolution import UpsampledConv2d

Device = Annotated[str, typer.Option(help="cpu or cuda")]
FORMATS = (torch.contiguous_format, torch.channels_last)
FORWARD, INPUT, WEIGHT = "forward", "input gradient", "weight gradient"


@dataclass(frozen=True)
class Convolution:
    """A convolution as the paper writes it, and what is computed of it: the result or one of its two gradients."""

    shape: tuple[int, ...]  # of its input (B, C, H, W)
    out_channels: int
    kernel: int
    stride: int
    what: str

    @property
    def gflop(self) -> float:
        """Its products and sums; the same for the result and for each gradient."""
        batch, channels, height, width = self.shape
        outputs = batch * self.out_channels * (height // self.stride) * (width // self.stride)
        return 2e-9 * outputs * channels * self.kernel**2

    def run_on(self, device: str, dtype: torch.dtype, memory_format: torch.memory_format) -> Callable[[], object]:
        """What is timed."""

        def tensor(*shape: int) -> Tensor:
            return torch.rand(shape, device=device).to(dtype).contiguous(memory_format=memory_format)

        batch, channels, height, width = self.shape
        x, weight = tensor(*self.shape), tensor(self.out_channels, channels, self.kernel, self.kernel)
        if self.what == FORWARD:
            return lambda: nn.functional.conv2d(x, weight, stride=self.stride, padding=1)
        y = tensor(batch, self.out_channels, height // self.stride, width // self.stride)
        mask = [self.what == INPUT, self.what == WEIGHT, False]
        stride = [self.stride] * 2
        return lambda: torch.ops.aten.convolution_backward(
            y, x, weight, None, stride, [1, 1], [1, 1], False, [0, 0], 1, mask
        )


def convolutions(network: nn.Module, inputs: Iterable[Tensor]) -> list[Convolution]:
    """Return the forward convolutions of a network on these inputs, with planes upsampled where the paper does so."""
    found: list[Convolution] = []

    def note(layer: nn.Conv2d, args: tuple[Tensor], output: Tensor) -> None:
        batch, channels, height, width = args[0].shape
        scale = 2 if isinstance(layer, UpsampledConv2d) else 1
        shape = batch, channels, scale * height, scale * width
        found.append(Convolution(shape, layer.out_channels, layer.kernel_size[0], layer.stride[0], FORWARD))

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]  # type: ignore[arg-type]
    with torch.no_grad():
        network(*inputs)
    for hook in hooks:
        hook.remove()
    return found


def needs(forward: list[Convolution], forwards: int, weights: int, inputs: int, image: bool) -> Counter[Convolution]:
    """What a part of an iteration cannot avoid: passes forward, weight gradients, input gradients.

    Args:
        forward: convolutions of one pass.
        forwards: number of passes.
        weights: of how many of them the weights' gradients are taken.
        inputs: of how many the inputs' gradients.
        image: whether the gradient goes on into what the network was given.
    """
    first = {c for c in forward if c.shape[1] == forward[0].shape[1]}  # sees an image, not features
    counted: Counter[Convolution] = Counter()
    for c in forward:
        at_image = c in first and not image
        for what, times in ((FORWARD, forwards), (WEIGHT, weights), (INPUT, 0 if at_image else inputs)):
            counted[Convolution(c.shape, c.out_channels, c.kernel, c.stride, what)] += times
    return +counted


def needs_by_part(trainer: SegANTrainer, image: Tensor, label: Tensor) -> dict[str, Counter[Convolution]]:
    """The arithmetic of the parts of an iteration."""
    segmentor = convolutions(trainer.network, [image])
    critic = convolutions(trainer.critic, [image, label])
    return {
        "S forward": needs(segmentor, 1, 0, 0, image=False),
        "S backward": needs(segmentor, 0, 1, 1, image=False),
        "C's step": needs(critic, 2, 2, 2, image=False),
        "C in S's step": needs(critic, 2, 0, 1, image=True),
    }


def rates(
    wanted: Iterable[Convolution], device: str, dtype: torch.dtype, rounds: int, processor_time: bool
) -> dict[Convolution, float]:
    """GFLOP/s of each convolution at its better memory format, at its fastest of so many runs."""
    best = {}
    for c in wanted:
        seconds = (
            by_turns({0: c.run_on(device, dtype, memory_format)}, rounds, processor_time, fastest=True)[0]
            for memory_format in FORMATS
        )
        best[c] = c.gflop / min(seconds)
    return best


def matrix_rate(device: str, dtype: torch.dtype, processor_time: bool) -> float:
    """GFLOP/s of one large matrix product."""
    n = 8192 if device == "cuda" else 2048
    a = torch.rand(n, n, device=device).to(dtype)
    return 2e-9 * n**3 / by_turns({0: lambda: a @ a}, 5, processor_time, fastest=True)[0]


def parts_of(trainer: SegANTrainer, batch: dict[str, Tensor]) -> dict[str, Callable[[], object]]:
    """The parts of an iteration, each to be run by itself, and the whole; backward parts with the pass before them."""
    image, label = trainer.prepare(batch)
    trainer.network.train()
    trainer.critic.train()

    def forward() -> Tensor:
        with trainer.autocast():
            return trainer.inferer(image, trainer.network)

    with torch.no_grad():
        logits = forward()
    prediction = logits.sigmoid()

    def critic_sees() -> None:
        trainer.distance_for_segmentor(image, prediction.detach().requires_grad_(), label).backward()

    return {
        "S forward": forward,
        "S both": lambda: forward().backward(logits),
        "C's step": lambda: trainer._step_critic(image, prediction, label),
        "C in S's step": critic_sees,
        "iteration": lambda: trainer._iteration(trainer, batch),
    }


def fractions(
    parts: dict[str, Counter[Convolution]],
    seconds: dict[str, float],
    executed: dict[str, float],
    rate: dict[Convolution, float],
) -> list[dict[str, object]]:
    """The table: of each part its arithmetic, its time, and that time's fractions of the two limits."""
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
    """GFLOP that are really executed by convolutions and matrix products."""
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
    """Measure one trainer's limit and parts, and print both tables."""
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
    device: Device = "cpu",
    compiled: bool = False,
    processor_time: ProcessorTime = False,
    json_file: JsonFile = None,
) -> None:
    """SegAN's iteration by its parts, as fractions of what the same convolutions reach alone (base 64, 160x160)."""
    from benchmarks.segan import make_batch, our_step

    for amp in (False, True):
        dtype = torch.bfloat16 if amp else torch.float32
        batch = make_batch(batch_size)
        trainer, _ = our_step(batch, amp, device, compiled)
        write_limit(trainer, batch, rounds, device, dtype, processor_time, json_file)
