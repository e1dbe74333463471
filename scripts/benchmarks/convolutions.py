# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Convolutions of a network: shapes, operations per pass, and rates on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.tables import by_turns
from segan_monai.engines import SegANTrainer
from segan_monai.networks.upsampled_convolution import UpsampledConv2d

FORMATS = (torch.contiguous_format, torch.channels_last)
FORWARD, INPUT, WEIGHT = "forward", "input gradient", "weight gradient"


@dataclass(frozen=True)
class Convolution:
    """Convolution as written in the paper, and the computed quantity: the result or one of its two gradients."""

    shape: tuple[int, ...]  # shape of the input (B, C, H, W)
    out_channels: int
    kernel: int
    stride: int
    what: str

    @property
    def gflop(self) -> float:
        """Multiplications and additions, equal for the result and each gradient."""
        batch, channels, height, width = self.shape
        outputs = batch * self.out_channels * (height // self.stride) * (width // self.stride)
        return 2e-9 * outputs * channels * self.kernel**2

    def run_on(self, device: str, dtype: torch.dtype, memory_format: torch.memory_format) -> Callable[[], object]:
        """Return the function to time."""

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


def convolutions(network: nn.Module, run: Callable[[], object]) -> list[Convolution]:
    """Return a network's forward convolutions during a run, with planes upsampled where the paper does so."""
    found: list[Convolution] = []

    def note(layer: nn.Conv2d, args: tuple[Tensor], output: Tensor) -> None:
        batch, channels, height, width = args[0].shape
        scale = 2 if isinstance(layer, UpsampledConv2d) else 1
        shape = batch, channels, scale * height, scale * width
        found.append(Convolution(shape, layer.out_channels, layer.kernel_size[0], layer.stride[0], FORWARD))

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]  # type: ignore[arg-type]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return found


def needs(forward: list[Convolution], forwards: int, weights: int, inputs: int, image: bool) -> Counter[Convolution]:
    """Count the required convolutions of a part of an iteration: forward passes, weight and input gradients.

    Args:
        forward: Convolutions of one pass.
        forwards: Number of forward passes.
        weights: Number of passes whose weight gradients are computed.
        inputs: Number of passes whose input gradients are computed.
        image: Whether the gradient with respect to the network's input is computed.
    """
    first = {c for c in forward if c.shape[1] == forward[0].shape[1]}  # sees an image, not features
    counted: Counter[Convolution] = Counter()
    for c in forward:
        at_image = c in first and not image
        for what, times in ((FORWARD, forwards), (WEIGHT, weights), (INPUT, 0 if at_image else inputs)):
            counted[Convolution(c.shape, c.out_channels, c.kernel, c.stride, what)] += times
    return +counted


def needs_by_part(trainer: SegANTrainer, image: Tensor, label: Tensor) -> dict[str, Counter[Convolution]]:
    """Count the convolutions of each part of an iteration."""
    segmentor = convolutions(trainer.network, lambda: trainer.network(image))
    critic = convolutions(trainer.critic, lambda: trainer.critic(image, label))
    return {
        "S forward": needs(segmentor, 1, 0, 0, image=False),
        "S backward": needs(segmentor, 0, 1, 1, image=False),
        "C's step": needs(critic, 2, 2, 2, image=False),
        "C in S's step": needs(critic, 2, 0, 1, image=True),
    }


def rates(
    wanted: Iterable[Convolution], device: str, dtype: torch.dtype, rounds: int, processor_time: bool
) -> dict[Convolution, float]:
    """Return the GFLOP/s of each convolution in its faster memory format, from the fastest of ``rounds`` runs."""
    best = {}
    times = 1 if device == "cpu" else 10  # one convolution on a GPU is as short as the time to launch it
    for c in wanted:
        seconds = (
            by_turns(
                {0: repeated(c.run_on(device, dtype, memory_format), times)}, rounds, processor_time, fastest=True
            )[0]
            for memory_format in FORMATS
        )
        best[c] = times * c.gflop / min(seconds)
    return best


def repeated(run: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a function that runs another one so many times."""

    def run_repeatedly() -> None:
        for _ in range(times):
            run()

    return run_repeatedly


def matrix_rate(device: str, dtype: torch.dtype, processor_time: bool) -> float:
    """Return the GFLOP/s of a large matrix product."""
    n = 8192 if device == "cuda" else 2048
    a = torch.rand(n, n, device=device).to(dtype)
    return 2e-9 * n**3 / by_turns({0: lambda: a @ a}, 5, processor_time, fastest=True)[0]
