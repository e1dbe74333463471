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
    """Return the parts for a GPU, or in miniature for a CPU.

    Parts that compile are last: they take long, and may use the time that the others left.
    """
    json = ("--json", "{folder}/result.json")
    small = ("--base-channels", "4", "--rounds", "1")

    def part(name: str, what: str, seconds: int, *command: str) -> Part:
        return Part(name, what, SECONDS_ON_CPU if cpu else seconds, (sys.executable, *command))

    def benchmark(name: str, what: str, seconds: int, on_gpu: tuple[str, ...], on_cpu: tuple[str, ...]) -> Part:
        command, _, compiler = name.partition(", ")
        if compiler:  # CUDA graphs have no counterpart on a CPU
            on_gpu, on_cpu = (*on_gpu, "--compile", compiler), (*on_cpu, "--compile", "aot_eager")
        options = on_cpu if cpu else ("--device", "cuda", *on_gpu)
        return part(name, what, seconds, "scripts/benchmark.py", command, *options, *json)

    def training(name: str, what: str, seconds: int, *options: str) -> Part:
        size = ("--device", "cpu", "--small") if cpu else ("--device", "cuda", "--seconds", str(seconds - 12))
        return part(name, what, seconds, "scripts/gpu_check/train.py", "--data", str(data), *size, *options, *json)

    def tests(name: str, what: str, seconds: int, on_gpu: tuple[str, ...], on_cpu: tuple[str, ...]) -> Part:
        pytest = ("-m", "pytest", "-v", "-p", "no:cacheprovider", "--junitxml", "{folder}/tests.xml")
        return part(name, what, seconds, *pytest, *(on_cpu if cpu else ("-m", "gpu", "-n", "8", *on_gpu)))

    compiled = "(compiled or phase) and not refused"
    step = ("--batch-size", "64", "--rounds", "5"), ("--batch-size", "1", *small)
    volume = (
        ("--without-brain",),
        ("--without-brain", "--slices", "1", "--training-iterations", "1", "--volumes", "1", *small),
    )
    patches = ("--batch-size", "16", "--rounds", "5"), ("--batch-size", "1", *small)
    on_cpu = ("tests/engines/test_loss_watch.py", "tests/gpu/test_trainers.py", "-k", "segmentation")
    return [
        tests("tests", "tests that need a GPU", 60, ("-k", f"not ({compiled})", *FOLDERS_WITH_GPU_TESTS), on_cpu),
        benchmark("train-step", "training step of SegAN against the literal algorithm", 35, *step),
        benchmark("inference", "a volume of 240x240x155: ours and MONAI's SliceInferer", 30, *volume),
        benchmark("limit", "parts of the step against its convolutions alone", 25, *step),
        benchmark("normalization-step", "training step of adversarial normalization", 18, *patches),
        benchmark("rois", "inference of L-SNet", 18, (), ("--size", "64", "--slices", "2", *small)),
        benchmark("augmentation", "slices one by one and in batches", 14, (), ("--batch-size", "2", "--rounds", "1")),
        training("training", "hippocampus bundle with critics", 42),
        training("training-without-critics", "hippocampus bundle without critics", 33, "--without-critics"),
        benchmark("train-step, inductor", "the step compiled", 50, *step),
        benchmark("train-step, graphs", "the step as CUDA graphs", 45, *step),
        benchmark("inference, inductor", "the volume, and compilations for 500 volumes", 45, *volume),
        tests(
            "tests of compiled steps",
            "inductor and CUDA graphs against eager steps",
            45,
            ("-k", compiled, *FOLDERS_WITH_GPU_TESTS),
            ("tests/engines/test_compiled_steps.py", "-k", "refused or own_graphs"),
        ),
    ]
