# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Helpers for all comparisons: alternating timing, tables, JSON output."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

JsonFile = Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")]
Rounds = Annotated[int, typer.Option(help="number of timed runs per side; the median is reported")]


ProcessorTime = Annotated[bool, typer.Option("--processor-time", help="measure processor time, for a busy machine")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
BaseChannels = Annotated[int, typer.Option(help="width of the first level; the paper's is 64")]
Compilers = Annotated[
    list[str] | None,
    typer.Option("--compile", help="also time this backend of torch.compile, or graphs; can be repeated"),
]


def by_turns(
    sides: dict[Any, Callable[[], Any]],
    rounds: int,
    processor_time: bool = False,
    fastest: bool = False,
    warm_up: int = 1,
) -> dict[Any, float]:
    """Time the sides alternately after unmeasured runs of each; return the median or fastest seconds of each side.

    CUDA graphs need three unmeasured runs: one to compile, one to allocate and one to capture.

    Processor time is that of all threads, divided by their number.
    """

    def now() -> float:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.process_time() / torch.get_num_threads() if processor_time else time.perf_counter()

    seconds: dict[Any, list[float]] = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name, run in sides.items():
            start = now()
            run()
            if number >= warm_up:
                seconds[name].append(now() - start)
    return {name: (min if fastest else statistics.median)(times) for name, times in seconds.items()}


def peak_gib(run: Callable[[], Any]) -> float:
    """Return the peak additional memory of a run in GiB; NaN on systems other than Linux."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        run()
        return float("nan")

    def kib(name: str) -> int:
        return int(
            next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(name)).split()[1]
        )

    before = kib("VmRSS")
    reset.write_text("5", encoding="utf-8")  # resets the high-water mark
    run()
    return (kib("VmHWM") - before) / 2**20


def device_gib(run: Callable[[], Any]) -> float:
    """Return the peak memory of a run on the GPU in GiB; NaN on the CPU."""
    if not torch.cuda.is_initialized():
        return float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30


def report(title: str, rows: list[dict[str, Any]], file: Path | None) -> None:
    """Print a table and optionally write it as JSON."""
    processor = f"{platform.machine()}, {torch.get_num_threads()} threads"
    device = torch.cuda.get_device_name() if torch.cuda.is_initialized() else processor
    hardware = f"{device}, torch {torch.__version__}"
    table = Table(title=f"{title}\n{hardware}")
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "side" else "right")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=120).print(table)
    if file is not None:
        file.write_text(
            json.dumps({"title": title, "hardware": hardware, "rows": rows}, indent=4) + "\n", encoding="utf-8"
        )
