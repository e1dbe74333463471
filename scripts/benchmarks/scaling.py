# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Cost by number of classes, slice size, number of volumes and number of processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from benchmarks.loading import TOP
from benchmarks.segan import iteration_of
from benchmarks.tables import JsonFile, Rounds, by_turns, report
from segan_monai.engines import gradient_exchange
from segan_monai.processes import average_over_processes, begin_average

HIPPOCAMPUS = TOP / "bundles" / "hippocampus_mri_segan_segmentation" / "configs" / "inference.json"


def scaling(rounds: Rounds = 3, batch_size: int = 8, json_file: JsonFile = None) -> None:
    """Time an iteration by number of classes and slice size; light critics, base 32."""
    by_classes = {k: iteration_of("S3-3C", k, True, 96, batch_size)[0] for k in (1, 2, 4, 8, 16)}
    by_size = {size: iteration_of("S3-3C", 3, True, size, batch_size)[0] for size in (64, 96, 128, 192, 256)}
    sides = {("classes", k): run for k, run in by_classes.items()} | {("size", n): run for n, run in by_size.items()}
    seconds = by_turns(sides, rounds)
    rows = []
    for kind, n in sides:
        first = seconds[kind, 1 if kind == "classes" else 64]
        text = f"{n} classes, 96x96" if kind == "classes" else f"{n}x{n}, 3 classes"
        pixels = batch_size * (96 if kind == "classes" else n) ** 2
        values = {"seconds": seconds[kind, n], "ratio": seconds[kind, n] / first}
        rows.append({"side": text, **values, "microseconds per pixel": 1e6 * seconds[kind, n] / pixels})
    report(f"scaling: one iteration, base 32, batch {batch_size}, one critic per class at base 16", rows, json_file)


@contextmanager
def _timed_messages() -> Iterator[list[float]]:
    """Collect the seconds that each message takes of the training's own thread: to send it, to wait and to store it."""
    seconds: list[float] = []

    def timed(tensors: Sequence[torch.Tensor]) -> Callable[[], None]:
        start = time.perf_counter()
        store = begin_average(tensors)
        sending = time.perf_counter() - start

        def stored() -> None:
            start = time.perf_counter()
            store()
            seconds.append(sending + time.perf_counter() - start)

        return stored

    gradient_exchange.begin_average = timed
    try:
        yield seconds
    finally:
        gradient_exchange.begin_average = begin_average


def _train(rank: int, processes: int, file: str, settings: tuple[int, int, int], together: Any, results: Any) -> None:
    """Run one process of ``two_processes``, on a separate core."""
    rounds, size, batch_size = settings
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1 - rank % len(cores)]})
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # torchrun sets it
    step, parameters = iteration_of("S3-3C", 3, True, size, batch_size)

    def median(run: Callable[[], Any], count: int) -> float:
        seconds = []
        for _ in range(count + 1):
            together.wait()
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[1:])

    alone = median(step, rounds)
    if processes > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=processes)
        step, _ = iteration_of("S3-3C", 3, True, size, batch_size)  # a trainer that knows the others
    step()  # records the order of the gradients
    with _timed_messages() as in_messages:
        joined = median(step, rounds)
    message = torch.rand(4 * 2**20)  # not the gradients themselves, whose time is predicted
    exchange = median(lambda: average_over_processes([message]), 10)
    results.put(
        (alone, joined, exchange, parameters, sum(in_messages) / (rounds + 1), len(in_messages) // (rounds + 1))
    )
    if processes > 1:
        torch.distributed.destroy_process_group()


def _train_together(processes: int, settings: tuple[int, int, int]) -> tuple[float, float, float, int, float, int]:
    """Return the figures of the slowest process.

    Returns:
        Seconds per step without and with exchange, seconds per exchange of 16 MiB, number of parameters, seconds of a
        step in messages, and number of messages per step.
    """
    context = multiprocessing.get_context("spawn")
    results, together = context.Queue(), context.Barrier(processes)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (processes, str(Path(folder) / "meet"), settings, together, results)
        running = [context.Process(target=_train, args=(rank, *arguments)) for rank in range(processes)]
        for process in running:
            process.start()
        found = [results.get() for _ in running]
        for process in running:
            process.join()
    return tuple(max(column) for column in zip(*found, strict=True))  # type: ignore[return-value]


def two_processes(
    rounds: Rounds = 5, starts: int = 2, size: int = 96, batch_size: int = 8, json_file: JsonFile = None
) -> None:
    """Time a training step with one and two processes (gloo, one core each), and predict it by the cost model.

    The prediction is the formula of ``cost-model``: the step time of the slower of two concurrent processes without
    exchange, plus the bytes of the gradients at the rate of another 16 MiB message. It stays fair if other programs
    slow a core down. ``in messages`` is the share of a step in which a process sends, waits for and stores gradients.
    """
    settings = (rounds, size, batch_size)
    ones, twos = [], []
    for _ in range(starts):  # alternately
        ones.append(_train_together(1, settings))
        twos.append(_train_together(2, settings))
    one = min(row[1] for row in ones)
    apart, two, message = (min(row[column] for row in twos) for column in range(3))
    rate = 4 * 4 * 2**20 / message
    gradients = 4 * ones[0][3]
    predicted = apart + gradients / rate
    _, _, _, _, in_messages, messages = min(twos, key=lambda row: row[1])  # of the shortest step
    sides = {"one process": one, "two, no exchange": apart, "two, predicted": predicted, "two, measured": two}
    rows: list[dict[str, Any]] = []
    for side, seconds in sides.items():
        processes = 1 if side == "one process" else 2
        rate_of_images = processes * batch_size / seconds
        speed = rate_of_images * one / batch_size
        row = {"side": side, "s per step": seconds, "images/s": rate_of_images, "speed": speed}
        share = in_messages / two if side == "two, measured" else 0.0
        rows.append({**row, "efficiency": speed / processes, "in messages": share})
    title = (
        f"two-processes: base 32, {size}x{size}, batch {batch_size} per process, gradients {gradients / 2**20:.1f} MiB"
    )
    title += f" in {messages} messages, exchange {rate / 2**20:.0f} MiB/s"
    report(f"{title}; measured / predicted {two / predicted:.2f}", rows, json_file)


def _command(images: Path, output: Path, processes: int) -> list[str]:
    weights = HIPPOCAMPUS.parents[1] / "models" / "model.pt"  # one network, not the ensemble
    folders = {"dataset_dir": images, "output_dir": output, "weights": weights, "estimate_quality": "false"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += ["-m", "monai.bundle", "run", "inference", "--config_file", str(HIPPOCAMPUS)]
    return command + [f"--{key}={value}" for key, value in folders.items()]


def _lines(output: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in output.glob("inference*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
    ]


def folder(volumes: int = 500, json_file: JsonFile = None) -> None:
    """Time inference of a folder of generated volumes of hippocampus size with one and two processes under torchrun.

    The last row is two processes that are killed halfway and restarted. It uses the bundle and its weights, and
    ``volumes`` links to one file.
    """
    place = Path(tempfile.mkdtemp())
    environment = {**os.environ, "PYTHONPATH": str(TOP), "OMP_NUM_THREADS": "1"}
    generator = np.random.default_rng(0)
    volume = generator.normal(200, 40, (35, 51, 35)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), place / "volume.nii.gz")

    def images(count: int) -> Path:
        made = place / f"images_{count}"
        if not made.is_dir():
            made.mkdir()
            for number in range(count):
                os.link(place / "volume.nii.gz", made / f"case_{number:05}.nii.gz")
        return made

    def run(processes: int, count: int, kill_at: int | None = None) -> dict[str, Any]:
        output = place / f"out_{processes}_{count}_{kill_at}"
        start = time.perf_counter()
        command = _command(images(count), output, processes)
        with (place / "log.txt").open("a", encoding="utf-8") as log:
            if kill_at is not None:
                running = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
                while len(list(output.glob("*_seg.nii.gz"))) < kill_at and running.poll() is None:
                    time.sleep(0.05)
                _kill_all(running)
            status = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
        if status:
            raise RuntimeError((place / "log.txt").read_text(encoding="utf-8")[-20000:])
        whole, lines = time.perf_counter() - start, _lines(output)
        counts = json.loads((output / "inference.json").read_text(encoding="utf-8"))["counts"]
        working = max(line["ended"] for line in lines) - min(line["ended"] - line["seconds"] for line in lines)
        return {
            "side": f"{processes} process{'es' * (processes > 1)}" + (", killed and restarted" if kill_at else ""),
            "volumes": count,
            "seconds": whole,
            "from first to last case": working,
            "volumes/s": count / working,
            "finished": counts["finished"],
            "repeated": len(lines) - len({line["case"] for line in lines}),
        }

    try:
        few = max(2, volumes // 5)
        rows = [run(1, few), run(1, volumes), run(2, few), run(2, volumes), run(2, volumes, kill_at=volumes // 2)]
    finally:
        shutil.rmtree(place)
    ratio = rows[3]["volumes/s"] / rows[1]["volumes/s"]
    report(f"folder: 35x51x35, base 16, torchrun; two processes {ratio:.2f} times the rate of one", rows, json_file)


def _kill_all(running: subprocess.Popen) -> None:
    """Send SIGKILL to torchrun and its children, which are in different process groups."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(running.pid)], capture_output=True, check=False)
    for pid in [running.pid, *map(int, children.stdout.split())]:
        os.kill(pid, 9)
    running.wait()
