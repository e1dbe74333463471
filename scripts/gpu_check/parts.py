# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Parts of the check: what each does, its command and its time limit."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
# other tests import SimpleITK, which the machine may lack
FOLDERS_WITH_GPU_TESTS = ("tests/gpu", "tests/engines", "tests/inferers")
SECONDS_ON_CPU = 3600  # a limit for what hangs, not for a slow machine


@dataclass(frozen=True)
class Part:
    """One part of the check, run as a separate process.

    Attributes:
        name: name in the JSON file.
        what: what it does, for the plan.
        seconds: time limit.
        command: program and arguments. ``{folder}`` is replaced by a folder for JSON and XML files with results.
    """

    name: str
    what: str
    seconds: int
    command: tuple[str, ...]


def parts(cpu: bool, data: Path) -> list[Part]:
    """Return the parts for a GPU (in all 7.5 minutes at most), or in miniature for a CPU."""
    json = ("--json", "{folder}/result.json")
    small = ("--base-channels", "4", "--rounds", "1")

    def benchmark(name: str, what: str, seconds: int, on_gpu: tuple[str, ...], on_cpu: tuple[str, ...]) -> Part:
        options = on_cpu if cpu else ("--device", "cuda", *on_gpu)
        return Part(
            name,
            what,
            SECONDS_ON_CPU if cpu else seconds,
            (sys.executable, "scripts/benchmark.py", name, *options, *json),
        )

    def training(name: str, what: str, seconds: int, *options: str) -> Part:
        size = ("--device", "cpu", "--small") if cpu else ("--device", "cuda", "--seconds", str(seconds - 12))
        script = (sys.executable, "scripts/gpu_check/train.py", "--data", str(data))
        return Part(name, what, SECONDS_ON_CPU if cpu else seconds, (*script, *size, *options, *json))

    compilers = ("--compile", "inductor", "--compile", "graphs")
    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", "{folder}/tests.xml")
    # on a CPU, the tests of the miniature are those that read losses as a GPU does
    chosen = ("tests/engines/test_loss_watch.py",) if cpu else ("-m", "gpu", "-n", "4", *FOLDERS_WITH_GPU_TESTS)
    return [
        Part("tests", "tests that need a GPU", SECONDS_ON_CPU if cpu else 120, (*pytest, *chosen)),
        benchmark(
            "train-step",
            "training step of SegAN: eager, inductor, CUDA graphs, literal algorithm",
            100,
            ("--batch-size", "64", "--rounds", "5", *compilers),
            ("--batch-size", "1", *small),
        ),
        benchmark(
            "inference",
            "a volume of 240x240x155: ours, MONAI's SliceInferer; compilations for 500 volumes",
            60,
            ("--without-brain", "--rounds", "3", *compilers),
            ("--without-brain", "--slices", "1", "--training-iterations", "1", "--volumes", "1", *small),
        ),
        training("training", "hippocampus bundle with critics", 50),
        training("training-without-critics", "hippocampus bundle without critics", 40, "--without-critics"),
        benchmark(
            "limit",
            "parts of the step against its convolutions alone",
            40,
            ("--batch-size", "64", "--rounds", "3"),
            ("--batch-size", "1", *small),
        ),
        benchmark(
            "normalization-step",
            "training step of adversarial normalization",
            30,
            ("--batch-size", "16", "--rounds", "5", "--compile", "inductor"),
            ("--batch-size", "1", *small),
        ),
        benchmark("rois", "inference of L-SNet", 20, (), ("--size", "64", "--slices", "2", *small)),
    ]
