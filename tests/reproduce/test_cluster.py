# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs on a Ray cluster of two real nodes, one of which is killed in the middle: bash scripts/test_ray.sh."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from segan_monai.errors import ConfigError
from segan_monai.reproduce import Cluster, RunFailedError
from segan_monai.run.lock import output_folder
from tests.bundles.datasets import write_hippocampi

WITH_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray: bash scripts/test_ray.sh")
SECONDS = 900  # far more than it takes; a bound, not a measure
SEEDS = (0, 1, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpus": 0}, r"--ray-cpus 0; expected a number above 0\."),
        ({"gpus": 1.5}, r"--ray-gpus 1\.5; expected a fraction or whole number\."),
        ({"retries": -1}, r"--ray-retries -1; expected a whole number of at least 0\."),
    ],
)
def test_numbers_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Cluster("local", **settings)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_error_says_how_to_install_it():
    with pytest.raises(ConfigError, match=r"--ray needs ray\[tune\], which is not installed\. Run: pip install ray"):
        Cluster("local").connect()


@WITH_RAY
def test_no_cluster_at_an_address_is_an_error():
    with pytest.raises(ConfigError, match=r"--ray 127\.0\.0\.1:1: no cluster answers \(.*ray start --head"):
        Cluster("127.0.0.1:1").connect()


class Task(NamedTuple):
    title: str
    folder: str


def act(task):
    """Do what the title says."""
    if task.title == "busy":
        with output_folder(task.folder):
            return "done"
    if task.title == "refused":
        raise ConfigError("it has other settings")
    if task.title == "failed":
        raise RunFailedError("failed: no memory")
    if task.title == "no folder":
        Path("/none/data").stat()
    return repr(os.environ.get("CUDA_VISIBLE_DEVICES"))


@pytest.fixture
def local(monkeypatch):
    """Ray on this machine, with a GPU that is none."""
    import ray

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, configure_logging=False, log_to_driver=False)
    cluster = Cluster("local", retries=0)
    cluster.connect()
    yield cluster
    ray.shutdown()


@WITH_RAY
@pytest.mark.slow
def test_what_becomes_of_runs_that_fail_wait_and_have_no_gpu(local, tmp_path, caplog):
    (warning,) = caplog.get_records("setup")
    assert warning.getMessage() == "the machines have GPUs, and --ray-gpus is 0: runs use none; add --ray-gpus 1"
    titles = ("refused", "failed", "no folder", "gpus", "busy")
    found = {}

    class Release(logging.Handler):
        def emit(self, record):
            if "waits" in record.getMessage():
                held.close()

    def collect():
        for task, outcome in local.outcomes([Task(title, str(tmp_path)) for title in titles], act):
            found[task.title] = str(outcome)

    release = Release()
    logging.getLogger("segan_monai.reproduce.cluster").addHandler(release)
    with contextlib.ExitStack() as held:
        held.enter_context(output_folder(tmp_path))
        with pytest.raises(ConfigError, match=r"^it has other settings$"):
            collect()
    logging.getLogger("segan_monai.reproduce.cluster").removeHandler(release)
    assert found["gpus"] == "''"
    assert found["failed"] == "failed: no memory"
    assert found["no folder"].startswith("no folder: FileNotFoundError: [Errno 2] No such file or directory: '/none")
    assert found["no folder"].endswith(f"and the folder {Path.cwd()}, under the same paths.")
    assert found["busy"] == "done"
    assert f"busy waits: {tmp_path} is in use by process {os.getpid()}" in caplog.text
    assert "refused: it has other settings" in caplog.text


@pytest.fixture
def nodes(tmp_path):
    """Two nodes of one core each: the head, and a second one; yields the head's address and the second's process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    folder = Path("/tmp") / f"segan_ray_{os.getpid()}"  # names of sockets may have no more than 107 letters
    head = [*start, "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
    started = []
    try:
        for number, command in enumerate((head, [*start, f"--address=127.0.0.1:{port}"])):
            log = (tmp_path / f"node_{number}.txt").open("w", encoding="utf-8")
            started.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
            end = time.monotonic() + 120
            while "Ray runtime started" not in Path(log.name).read_text(encoding="utf-8"):
                assert started[-1].poll() is None, Path(log.name).read_text(encoding="utf-8")
                assert time.monotonic() < end, "the node does not start"
                time.sleep(0.2)
        yield f"127.0.0.1:{port}", started[1].pid
    finally:
        for process in started:
            kill(tree_of(process.pid))


def tree_of(process):
    """The process and all that it started, each with its command line."""
    parents, words = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return {one: words.get(one, "") for one in found}


def kill(tree):
    """As a machine that loses power."""
    for process in tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def waits(pipe):
    """Whether a training waits for a pipe, which is held for it."""
    with contextlib.suppress(OSError):
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    return None


@WITH_RAY
@pytest.mark.slow
def test_a_table_goes_on_when_a_node_is_killed(nodes, tmp_path, oblique, write_volume):
    address, second = nodes
    data = write_hippocampi(tmp_path / "Task04_Hippocampus", oblique, write_volume)
    out, overlay = tmp_path / "out", tmp_path / "small.json"
    small = {"device": "cpu", "base_channels": 4, "slice_size": [16, 16], "batch_size": 2, "slices_per_volume": 2}
    small |= {"folds": 2, "epochs": 2, "val_interval": 1, "num_workers": 0}
    waiting = tmp_path / "waiting"  # an overlay whose content changes would be refused
    waiting.touch()
    gate = {"_target_": "tests.faults.hooks.WaitFor", "pipe": f"$'{tmp_path}/gate_' + str(@seed)", "iteration": 3}
    gate["_disabled_"] = f"$not __import__('os').path.exists('{waiting}')"
    overlay.write_text(json.dumps({**small, "+train#handlers": [gate]}), encoding="utf-8")
    gates = {seed: tmp_path / f"gate_{seed}" for seed in SEEDS}
    for file in gates.values():
        os.mkfifo(file)
    command = [sys.executable, "-m", "segan_monai", "reproduce", "segan-vs-unet", "--row", "U-Net", "--seeds", "0,1,2"]
    command += ["--bundle", "hippocampus_mri_segan_segmentation", "--dataset-dir", str(data)]
    command += ["--output-dir", str(out), "--config", str(overlay), "--ray", address]
    log = tmp_path / "driver.txt"
    with log.open("w", encoding="utf-8") as stream:
        driver = subprocess.Popen(command, stdout=stream, stderr=stream)
    held = {}
    end = time.monotonic() + SECONDS
    while len(held) < 2:  # one training on each node, in its second epoch
        assert driver.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < end, "the trainings do not start"
        for seed in set(SEEDS) - set(held):
            if (descriptor := waits(gates[seed])) is not None:
                held[seed] = descriptor
        time.sleep(0.1)
    tree = tree_of(second)
    (lost,) = (seed for seed in held if any(f"/seed_{seed}/" in words for words in tree.values()))
    kill(tree)
    waiting.unlink()  # the next ones do not wait
    for descriptor in held.values():
        os.close(descriptor)
    try:
        assert driver.wait(SECONDS) == 0, log.read_text(encoding="utf-8")
    finally:
        driver.kill()
    with (out / "segan_vs_unet.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["seed"], row["epochs"]) for row in rows} == {(str(seed), "2") for seed in SEEDS}
    for seed in SEEDS:
        text = (out / "unet" / f"seed_{seed}" / "training" / "log.txt").read_text(encoding="utf-8")
        assert ("resumed from" in text) == (seed == lost), "only the lost one is resumed, and none begins anew"
    models = {file: file.stat().st_mtime_ns for file in out.rglob("*.pt")}
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert again.returncode == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.pt")} == models, "finished runs are kept"
