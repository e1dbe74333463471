# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A sweep by Ray Tune on this machine, killed in the middle and resumed: bash scripts/test_ray.sh."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow]
pytest.importorskip("ray", reason="Ray: bash scripts/test_ray.sh")
SECONDS = 900  # far more than it takes; a bound, not a measure
TRIALS = 2
EPOCHS = 2


def command_in(tmp_path, hippocampi, **settings):
    """The command of a sweep with its files in a folder."""
    space = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "base_channels": {"choices": [4, 8]}}
    (tmp_path / "space.json").write_text(json.dumps(space), encoding="utf-8")
    small = {"device": "cpu", "slice_size": [16, 16], "batch_size": 2, "slices_per_volume": 2, "folds": 2}
    small |= {"epochs": EPOCHS, "val_interval": 1, "num_workers": 0, **settings}
    (tmp_path / "small.json").write_text(json.dumps(small), encoding="utf-8")
    command = [sys.executable, "-m", "segan_monai", "sweep", "hippocampus", str(hippocampi)]
    command += ["-o", str(tmp_path / "out"), "--trials", str(TRIALS)]
    command += ["--set", "seed=3"]
    return [*command, "--space", str(tmp_path / "space.json"), "--config", str(tmp_path / "small.json")]


def values_of(training):
    """The values of a history that depend on nothing but settings and data."""
    with (training / "history.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [(row["epoch"], row["name"], row["value"]) for row in rows if row["name"] != "peak_memory_mib"]


def test_trainings_that_fail_are_not_repeated(hippocampi, tmp_path):
    command = command_in(tmp_path, hippocampi, num_workers=-1)
    times = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        assert done.returncode == 1
        assert re.search(r"no trial of .* has a value of .*mean_dice\. .*status 1: .*num_workers", done.stderr)
        records = [json.loads(file.read_text(encoding="utf-8")) for file in tmp_path.glob("out/trials/*/trial.json")]
        assert len(records) == TRIALS
        assert all("ended with status 1" in record["failed"] for record in records)
        assert not list(tmp_path.rglob("error.txt")), "Ray Tune writes it before it tries again"
        times.append({file: file.stat().st_mtime_ns for file in tmp_path.glob("out/trials/*/training.log")})
    assert times[0] == times[1]


def test_a_sweep_is_killed_and_resumed(hippocampi, tmp_path):
    out, command = tmp_path / "out", command_in(tmp_path, hippocampi)
    log = tmp_path / "sweep.txt"
    with log.open("w", encoding="utf-8") as stream:
        driver = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
    end = time.monotonic() + SECONDS
    while not any('"ended": true' in file.read_text(encoding="utf-8") for file in out.glob("trials/*/trial.json")):
        assert driver.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < end, log.read_text(encoding="utf-8")
        time.sleep(0.5)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    ended = [file.parent for file in out.glob("trials/*/trial.json") if '"ended"' in file.read_text(encoding="utf-8")]
    before = {file: file.stat().st_mtime_ns for folder in ended for file in folder.glob("training/*.pt")}
    assert before

    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {file: file.stat().st_mtime_ns for file in before} == before, "trials that ended are not repeated"
    with (out / "sweep.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == TRIALS
    assert {row["state"] for row in rows} <= {"finished", "stopped early"}
    for row in rows:
        assert 1e-4 <= float(row["learning_rate"]) <= 1e-2
        record = json.loads((out / "trials" / row["trial"] / "training" / "run.json").read_text(encoding="utf-8"))
        assert record["config"]["base_channels"] == int(row["base_channels"])
        assert (int(row["epochs"]) == EPOCHS) == (row["state"] == "finished")
    best = json.loads((out / "best.json").read_text(encoding="utf-8"))
    assert best["base_channels"] == int(rows[0]["base_channels"])
    assert (out / "sweep.html").is_file()

    (line,) = (line for line in again.stdout.splitlines() if line.startswith("next:"))
    words = [sys.executable, "-m", "segan_monai", *shlex.split(line)[2:], "-o", str(tmp_path / "pasted")]
    pasted = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert pasted.returncode == 0, pasted.stderr
    best_trial = values_of(out / "trials" / rows[0]["trial"] / "training")
    assert len(best_trial) > 2
    assert values_of(tmp_path / "pasted")[: len(best_trial)] == best_trial

    other = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, check=False, timeout=SECONDS)
    assert "holds a sweep with other settings (seed differ)" in other.stderr
