# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""scripts/gpu_check.sh: all of it in miniature, and its parts when they fail."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import run_python

TOP = Path(__file__).parents[2]


@pytest.fixture
def check(monkeypatch):
    """The module that runs the parts."""
    monkeypatch.syspath_prepend(str(TOP / "scripts" / "gpu_check"))
    import run

    yield run
    for name in ("run", "parts"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_script_runs_a_part_in_miniature(hippocampi, tmp_path):
    command = ["bash", "scripts/gpu_check.sh", "--cpu", "--data", str(hippocampi), "--part", "train-step"]
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(out)}
    done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True, check=False)
    log = (out / "gpu_check.log").read_text(encoding="utf-8")
    assert done.returncode == 0, log[-3000:]
    assert done.stdout.startswith("Plan: about 10 s of an idle core"), "it says at once what it will do"
    (part,) = json.loads((out / "gpu_check.json").read_text(encoding="utf-8"))["parts"].values()
    assert part["status"] == "passed"
    rows = part["results"]["result"]["rows"]
    assert [row["side"] for row in rows] == ["literal", "float32", "bfloat16"]
    assert len(list(out.iterdir())) == 2, "one JSON file and one log"


@pytest.mark.slow
def test_all_other_parts_in_miniature(check, hippocampi, tmp_path):
    """In forked processes, each with the part's own command."""
    found = {}
    for number, part in enumerate(check.parts(True, hippocampi)):
        if part.name == "train-step":
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        python, *words = (word.replace("{folder}", str(folder)) for word in part.command)
        assert python == sys.executable
        done = run_python(*words, cwd=TOP, env=check.environment(str(folder)))
        assert done.returncode == 0, f"{part.name}: {(done.stdout + done.stderr)[-3000:]}"
        found[part.name] = check.results(folder)
    assert len(found) == 12
    assert found["tests"]["tests"]["tests"] > 10
    assert found["tests"]["tests"]["failed"] == {}
    rows = {name: results["result"]["rows"] for name, results in found.items() if "result" in results}
    assert rows["train-step, inductor"][-1]["side"] == "bfloat16, aot_eager"
    assert rows["inference, inductor"][-1]["compilations"] <= 1, (
        "one size of plane that the volume may have had already"
    )
    assert {row["side"] for row in rows["inference"]} > {"bfloat16", "MONAI SliceInferer"}
    assert {row["side"].partition(": ")[2] for row in rows["augmentation"]} == {"one by one, cpu", "batch, cpu"}
    for name in ("training", "training-without-critics"):
        (row,) = rows[name]
        assert row["epochs"] == 1
        assert row["images/s"] > 0
        assert 0 <= row["mean_dice"] <= 1


def test_an_unknown_part_is_named_with_those_there_are(check, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["run.py", "--cpu", "--part", "limits"])
    with pytest.raises(SystemExit):
        check.main()
    assert "no part 'limits'; expected one of tests, train-step, inference, limit," in capsys.readouterr().err


def test_the_plan_for_a_gpu_takes_eight_minutes_at_most(check):
    chosen = check.parts(False, Path("data"))
    assert check.planned(chosen) <= check.LARGEST_SECONDS == 480
    assert len({part.name for part in chosen}) == len(chosen)


def part(check, code, seconds=30):
    return check.Part("part", "a part", seconds, (sys.executable, "-c", code, "{folder}"))


def test_a_part_that_fails_keeps_its_results(check, tmp_path):
    log = tmp_path / "log"
    code = (
        "import pathlib, sys; pathlib.Path(sys.argv[1], 'a.json').write_text('{\"x\": 1}'); print('said'); sys.exit(3)"
    )
    result = check.run(part(check, code), 30, log)
    assert result["status"] == "exit status 3"
    assert result["results"] == {"a": {"x": 1}}
    assert "said" in log.read_text(encoding="utf-8")


def test_a_part_that_takes_too_long_is_stopped_with_its_processes(check, tmp_path):
    code = (
        "import pathlib, subprocess, sys, time; child = subprocess.Popen(['sleep', '600']); "
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid)); "
        "pathlib.Path(sys.argv[1], 'a.json').write_text('{'); time.sleep(600)"
    )
    result = check.run(part(check, code), 5, tmp_path / "log")
    assert result["status"] == "stopped after 5 s"
    assert result["results"] == {"a": None}, "a file that was cut off"
    with contextlib.suppress(ProcessLookupError):  # its child ends too, at once or soon: the system delivers the signal
        child = os.pidfd_open(int((tmp_path / "pid").read_text(encoding="utf-8")))
        assert select.select([child], [], [], 60)[0]
        os.close(child)


def test_a_part_is_not_started_without_time(check, tmp_path):
    result = check.run(part(check, "raise SystemExit(1)"), 2, tmp_path / "log")
    assert result["status"] == "not started: no time left"


def test_failed_tests_are_named(check, tmp_path):
    file = tmp_path / "tests.xml"
    file.write_text(
        '<testsuites><testsuite><testcase classname="a.b" name="c"><failure message="assert 1 == 2"/></testcase>'
        '<testcase classname="a.b" name="d"><skipped/></testcase>'
        '<testcase classname="a.b" name="e"/></testsuite></testsuites>',
        encoding="utf-8",
    )
    assert check.outcome(file) == {"tests": 3, "skipped": 1, "failed": {"a.b::c": "assert 1 == 2"}}


def test_collecting_data_without_a_data_set_is_refused(tmp_path):
    """Before it downloads anything: the folder is checked by name."""
    command = ["bash", "scripts/gpu_check.sh", "--collect", str(tmp_path)]
    done = subprocess.run(
        command, cwd=TOP, capture_output=True, text=True, check=False, env={**os.environ, "PYTHON": "false"}
    )
    assert done.returncode == 1
    assert "has no dataset.json; expected Task04_Hippocampus" in done.stderr


@pytest.mark.slow
def test_all_gpu_tests_are_collected_without_packages_that_the_machine_may_lack(check):
    """And no file elsewhere has one, which the check would leave out."""
    code = (
        "import sys; sys.modules |= dict.fromkeys(('SimpleITK', 'itk', 'nilearn')); "
        "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *sys.modules[check.parts.__module__].FOLDERS_WITH_GPU_TESTS],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    marked = {
        file.relative_to(TOP).as_posix()
        for file in TOP.glob("tests/**/test_*.py")
        if "mark.gpu" in (text := file.read_text(encoding="utf-8")) or re.search(r"\bDEVICES\b", text)
    }
    assert collected == marked - {"tests/scripts/test_gpu_check.py"}
