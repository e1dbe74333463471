# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A sweep by Ray Tune on this machine, killed in the middle and resumed: bash scripts/test_ray.sh."""

from __future__ import annotations

import csv
import json
import os
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


def test_a_sweep_is_killed_and_resumed(hippocampi, tmp_path):
    out = tmp_path / "out"
    space = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "base_channels": {"choices": [4, 8]}}
    (tmp_path / "space.json").write_text(json.dumps(space), encoding="utf-8")
    small = {"device": "cpu", "slice_size": [16, 16], "batch_size": 2, "slices_per_volume": 2, "folds": 2}
    small |= {"epochs": EPOCHS, "val_interval": 1, "num_workers": 0}
    (tmp_path / "small.json").write_text(json.dumps(small), encoding="utf-8")
    command = [sys.executable, "-m", "segan_monai", "sweep", "hippocampus", str(hippocampi), "-o", str(out)]
    command += ["--space", str(tmp_path / "space.json"), "--config", str(tmp_path / "small.json")]
    command += ["--trials", str(TRIALS)]

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

    other = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, check=False, timeout=SECONDS)
    assert "holds a sweep with other settings (seed differ)" in other.stderr
