# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The wheel in a new environment, outside of the checkout: the first hour of a user, in small."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.packaging.builds import make_environment

pytestmark = pytest.mark.slow

SMALL = {
    "device": "cpu",
    "epochs": "2",
    "base_channels": "4",
    "batch_size": "4",
    "slices_per_volume": "2",
    "num_workers": "0",
    "max_cases": "6",
    "folds": "3",
    "val_interval": "1",
}
OPTIONS = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
NETWORK = ["--device", "cpu", "--base_channels", SMALL["base_channels"]]
FORKING = Path(__file__).with_name("forking.py")
CHECKS = ("files", "metadata", "document", "network", "train", "infer", "torchscript", "onnx", "run_onnx")


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    """Programs of an environment with the wheel and the extra ``phantoms``."""
    return make_environment(tmp_path_factory.mktemp("environment") / "venv", wheel, {"phantoms"})


@pytest.fixture(scope="module")
def run(programs, tmp_path_factory):
    """Run a command in a folder that is empty at first; return what it prints."""
    folder, home = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SEGAN_MONAI", "XDG"))}
    environment = {**kept, "PATH": f"{programs}{os.pathsep}{kept['PATH']}", "HOME": str(home), "PYTHONUTF8": "1"}

    def run_command(*words, status=0):
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    run_command.folder = folder
    run_command.environment = environment
    return run_command


@pytest.fixture(scope="module")
def forked(run, programs, tmp_path_factory):
    """Run ``segan-monai`` or ``python -m`` as ``run`` does, but in children of one process of the environment."""
    output = tmp_path_factory.mktemp("forked") / "output"
    server = subprocess.Popen(
        [programs / "python", FORKING, output],
        cwd=run.folder, env=run.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def run_command(*words, status=0):
        print(json.dumps(words), file=server.stdin, flush=True)
        answer = server.stdout.readline()
        printed = output.read_text(encoding="utf-8")
        assert answer == f"{status}\n", f"{' '.join(words)}: {answer}\n{printed}"
        return printed

    with server:
        yield run_command
        server.stdin.close()


@pytest.fixture(scope="module")
def where(run):
    """Folder of the installed package, and of two bundles by name."""
    names = "hippocampus_mri_segan_segmentation", "brats_mri_segan_segmentation"
    code = f"import segan_monai as s; print(s.__path__[0], *(s.bundle_root(name) for name in {names}), sep='\\n')"
    return run("python", "-c", code).splitlines()[:3]  # what follows is on stderr


def files_of(programs):
    """Files of the environment without compiled modules."""
    return {file for file in programs.parent.rglob("*") if file.suffix != ".pyc" and file.is_file()}


def test_only_what_is_required_is_there(run):
    found = run(
        "python", "-c", "import importlib.util as u; print([u.find_spec(n) for n in ('itk', 'onnx', 'mkdocs')])"
    )
    assert found.strip() == "[None, None, None]"
    assert "No module named pytest" in run("python", "-m", "pytest", status=1)


def test_from_phantoms_to_a_report_a_bundle_and_a_table(run, forked, where, programs):
    before = files_of(programs)
    package, *roots = where
    assert package.startswith(str(programs.parent))
    names = "hippocampus_mri_segan_segmentation", "brats_mri_segan_segmentation"
    assert roots == [f"{package}/bundles/{name}" for name in names]

    forked("segan-monai", "phantoms", "data", "--cases", "6", "--spacing", "4", "--layout", "msd", "--workers", "1")
    run("segan-monai", "train", "brats", "data", "-o", "training", *OPTIONS)  # as a user starts it
    forked("segan-monai", "predict", "training", "-i", "data", "-o", "predicted", *NETWORK)
    assert len(list((run.folder / "predicted").glob("*_seg.nii.gz"))) == 6
    forked("segan-monai", "evaluate", "training", "data", "-o", "evaluated", *NETWORK)
    assert json.loads((run.folder / "evaluated" / "summary.json").read_text(encoding="utf-8"))
    forked("segan-monai", "report", "training", "evaluated", "--file", "both.html")
    assert "<svg" in (run.folder / "both.html").read_text(encoding="utf-8")

    command = "segan-monai new-bundle tumour_segmentation --method segan --data data --output-dir own --processes 1"
    forked(*command.split())
    assert (run.folder / "own" / "tumour_segmentation" / "configs" / "train.json").is_file()
    table = [
        "reproduce",
        "segan-vs-unet",
        "--dataset-dir",
        "data",
        "--output-dir",
        "table",
        "--row",
        "SegAN",
        "--seeds",
        "0",
    ]
    settings = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    forked("segan-monai", *table, "--config", "configs/quick_cpu.json", *settings)
    assert list((run.folder / "table").glob("*.md"))

    checks = [word for name in CHECKS for word in ("--check", name)]
    verified = forked("segan-monai", "verify", roots[0], *checks)
    results = {line.split()[0]: line for line in verified.splitlines() if line.strip()}
    for name in CHECKS:
        assert results[name].split()[1] == ("skipped" if "onnx" in name else "ok"), results[name]
    assert "Run: pip install onnx onnxscript onnxruntime." in results["onnx"]

    assert files_of(programs) == before


def test_what_is_not_installed_is_said_in_one_line(forked, where):
    root = where[1]
    forked("segan-monai", "export", "torchscript", root, "--output", "model.ts")
    said = forked("segan-monai", "export", "onnx", root, "--output", "model.onnx", status=1)
    assert "needs onnx and onnxscript, which are not installed. Run: pip install onnx onnxscript." in said
    assert "Traceback" not in said


def test_the_long_command_does_not_write_into_the_package(forked, where):
    command = ["python", "-m", "monai.bundle", "run", "training", "--config_file", f"{where[1]}/configs/train.json"]
    said = forked(*command, "--dataset_dir", "data", status=1)
    assert "is inside the installed package" in said
    assert "--output_dir FOLDER" in said
