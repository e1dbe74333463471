# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs the parts of the check one after the other, each with a time limit; scripts/gpu_check.sh starts it.

Results so far are in gpu_check.json after each part, so a check that is cut off loses only the part that ran.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from parts import SECONDS_ON_CPU, TOP, Part, parts

LARGEST_SECONDS = 480
START_SECONDS = 20  # installation and start


def main() -> int:
    """Run all parts; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description="tests, measures and trains on a GPU")
    parser.add_argument("--cpu", action="store_true", help="the same parts in miniature, on a CPU")
    parser.add_argument("--data", type=Path, help="folder of the hippocampus data")
    parser.add_argument("--part", action="append", help="name of a part; without this option all run")
    parser.add_argument("--since", type=float, default=0, help=argparse.SUPPRESS)  # seconds of the installation
    options = parser.parse_args()
    started = time.monotonic() - options.since
    output = Path(os.environ.get("OUT") or TOP / "output" / "gpu_check")
    output.mkdir(parents=True, exist_ok=True)
    log, file = output / "gpu_check.log", output / "gpu_check.json"
    log.write_text("", encoding="utf-8")
    data = find_data(options.data)
    chosen = parts(options.cpu, data)
    if options.part:
        unknown = set(options.part) - {part.name for part in chosen}
        if unknown:
            parser.error(f"no part {sorted(unknown)[0]!r}; expected one of {', '.join(part.name for part in chosen)}")
        chosen = [part for part in chosen if part.name in options.part]
    largest = SECONDS_ON_CPU if options.cpu else LARGEST_SECONDS
    on_gpu = f"at most {planned(chosen) / 60:.1f} minutes"
    how_long = f"about {10 * len(chosen)} s of an idle core" if options.cpu else on_gpu
    say(log, f"Plan: {how_long}; results in {output}")
    for part in chosen:
        say(log, f"  {part.seconds:4d} s at most: {part.name}, {part.what}")
    say(log, f"  data: {data}")
    found: dict[str, Any] = {"machine": machine(), "parts": {}}
    say(log, json.dumps(found["machine"]))
    for index, part in enumerate(chosen):
        later = sum(other.seconds for other in chosen[index + 1 :])
        left = largest - (time.monotonic() - started)
        limit = left if options.cpu else max(min(part.seconds, left), left - later)  # what the earlier parts left, too
        found["parts"][part.name] = result = run(part, limit, log)
        file.write_text(json.dumps(found, indent=4) + "\n", encoding="utf-8")
        say(log, f"{part.name}: {result['status']} in {result['seconds']:.0f} s")
    failed = [name for name, result in found["parts"].items() if result["status"] != "passed"]
    say(log, f"failed: {', '.join(failed)}" if failed else "all parts passed")
    return 1 if failed else 0


def planned(chosen: list[Part]) -> int:
    """Return the seconds that all parts take at most."""
    return START_SECONDS + sum(part.seconds for part in chosen)


def find_data(given: Path | None) -> Path:
    """Return the folder of the hippocampus data; the trainings fail with a message if it is not there."""
    if given is not None:
        return given
    public = os.environ.get("SEGAN_MONAI_DATA")
    carried = TOP / ".gpu_data"
    return Path(public, "msd_hippocampus") if public and not (carried / "dataset.json").is_file() else carried


def machine() -> dict[str, Any]:
    """Return versions and hardware; without a working PyTorch, the reason."""
    facts: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count()}
    try:
        import torch

        facts["torch"] = torch.__version__
        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(0)
            facts |= {"gpu": properties.name, "gpu_gib": round(properties.total_memory / 2**30, 1)}
            facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    except Exception as error:  # the parts then fail one by one, with their own messages
        facts["error"] = f"{type(error).__name__}: {error}"
    return facts


def run(part: Part, seconds: float, log: Path) -> dict[str, Any]:
    """Run a part, append its output to the log, and return status, seconds and results."""
    with tempfile.TemporaryDirectory() as folder, log.open("a", encoding="utf-8") as stream:
        command = [word.replace("{folder}", folder) for word in part.command]
        stream.write(f"\n$ {' '.join(command)}\n")
        stream.flush()
        begin = time.monotonic()
        if seconds < 5:
            return {"status": "not started: no time left", "seconds": 0.0, "results": {}}
        # a session of its own, so that worker processes end with it
        process = subprocess.Popen(
            command, cwd=TOP, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, env=environment(folder)
        )
        try:
            code = process.wait(seconds)
            status = "passed" if code == 0 else f"exit status {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = f"stopped after {seconds:.0f} s"
        return {"status": status, "seconds": round(time.monotonic() - begin, 1), "results": results(Path(folder))}


def environment(folder: str) -> dict[str, str]:
    """Return the environment of a part: deterministic cuBLAS is possible, and files stay in the part's folder."""
    return {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "GPU_CHECK_FOLDER": folder}


def results(folder: Path) -> dict[str, Any]:
    """Collect the tables of a part, and the outcome of its tests."""
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.json")):
        try:
            found[file.stem] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # cut off while it was written
            found[file.stem] = None
    for file in folder.glob("*.xml"):
        found["tests"] = outcome(file)
    return found


def outcome(file: Path) -> dict[str, Any]:
    """Return the numbers of tests in a JUnit file, and the message of each that failed."""
    cases = list(ElementTree.parse(file).getroot().iter("testcase"))
    states = {case: {child.tag: child for child in case} for case in cases}
    bad = {c: s.get("failure", s.get("error")) for c, s in states.items() if {"failure", "error"} & set(s)}
    return {
        "tests": len(cases),
        "skipped": sum("skipped" in state for state in states.values()),
        "failed": {
            f"{case.get('classname')}::{case.get('name')}": (element.get("message") or "")[:500]
            for case, element in bad.items()
            if element is not None
        },
    }


def say(log: Path, text: str) -> None:
    """Print a line, and append it to the log."""
    print(text, flush=True)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
