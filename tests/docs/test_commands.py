# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Every command of the docs is run, with options appended that make it short, or is in the table of what cannot be.

The Python examples of README.md and docs/from_python.md, and one of docs/federated.md, are run as they are.
"""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segan_monai.simulation.sample_data import write_sample_data
from tests.docs import workspace as workspaces
from tests.docs.pages import PAGES, TOP, blocks_of, name_of, script_of
from tests.docs.workspace import calls_of, make_workspace

pytestmark = pytest.mark.slow

# Commands that are not run, by how they begin; what is looked at instead is in `look_at`.
NOT_RUN = {
    "bash .ci/run": "runs these tests",
    "bash scripts/test.sh": "runs these tests",
    "bash scripts/docs.sh": "installs the project; .ci/run does it",
    "bash scripts/gpu_check.sh": "needs a GPU; tests/scripts/test_gpu_check.py runs its miniature",
    "bash scripts/demo.sh": "installs the project, then minutes of training",
    "bash scripts/install_nnunet.sh": "installs nnU-Net, 250 MB",
    "bash scripts/monai_label.sh": "installs MONAI Label, 2.5 GB, and serves until it is stopped",
    "bash scripts/test_orthanc.sh": "needs Orthanc",
    "bash scripts/test_ohif.sh": "needs Orthanc, Chromium and the viewer from npm",
    "bash scripts/release.sh": "installs the project; tests/scripts/test_release.py makes the zips",
    "bash scripts/test_ray.sh": "installs Ray, 400 MB",
    "bash scripts/test_monai_label.sh": "installs MONAI Label, 2.5 GB",
    "python hippocampus_map/app": "needs MONAI Deploy; tests/export/test_deploy.py runs it where it is installed",
    "pip install": "downloads",
    "pip wheel": "downloads; tests/packaging builds the wheel",
    "python -m build": "downloads; tests/packaging builds both",
    "pre-commit install": "changes the checkout",
    "python -m pytest": "runs tests",
    "python scripts/benchmark.py": "minutes of a quiet core",
    "torchrun": "several processes; tests/bundles/test_multi_gpu.py starts them",
    "srun": "Slurm",
    "scontrol": "Slurm",
    "head": "of what scontrol prints",
}
COMMANDS = [page for page in PAGES if script_of(page)]


@pytest.fixture(scope="session")
def workspace(phantoms, tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("workspace"), phantoms)


@pytest.fixture(scope="session")
def run(workspace, tmp_path_factory):
    """Run a call, once however many pages have it."""
    logs, found = tmp_path_factory.mktemp("logs"), {}

    def once(call):
        if call not in found:
            log = logs / f"{len(found)}.txt"
            found[call] = workspaces.run(call, log), log
        return found[call]

    return once


@pytest.fixture(scope="session")
def calls(workspace, tmp_path_factory):
    """The calls of a page; those of a bundle's page are made in its folder."""

    def of(page):
        place = workspace / page.relative_to(TOP).parents[1] if page.match("bundles/*/docs/*") else workspace
        return calls_of(script_of(page), place, tmp_path_factory.mktemp("records"))

    return of


@pytest.fixture(scope="session")
def trained(run, calls):
    """Weights of every bundle, by the trainings of the bundles' pages."""
    for page in COMMANDS:
        if page.match("bundles/*/docs/*"):
            for training in (call for call in calls(page) if "training" in call and call[1] == "python"):
                status, log = run(training)
                assert status == 0, f"{training}:\n{log.read_text(encoding='utf-8')}"


@pytest.mark.parametrize("page", COMMANDS, ids=name_of)
def test_every_command_runs(page, trained, workspace, run, calls):
    for call in calls(page):
        folder, *words = call
        text = " ".join(words)
        if any(text.startswith(begin) for begin in NOT_RUN):
            look_at(words, Path(folder))
            continue
        status, log = run(call)
        assert status == 0, (
            f"{name_of(page)}: {text}\nended with status {status} and printed\n{log.read_text(encoding='utf-8')}"
        )


def look_at(words, folder):
    """Of a command that is not run: its files are there, its options are known."""
    if words[0] == "bash":
        assert subprocess.run(["/bin/bash", "-n", TOP / words[1]], check=False).returncode == 0
        for word in words[2:]:
            assert "/" not in word or word.startswith("http") or (folder / word).exists(), word
    elif words[0] == "pip":
        setup = configparser.ConfigParser()
        setup.read(TOP / "setup.cfg")
        for extra in re.findall(r"\[(\w+)\]", " ".join(words)):
            assert extra in setup["options.extras_require"]
    elif words[:2] == ["python", "scripts/benchmark.py"]:
        texts = [file.read_text(encoding="utf-8") for file in TOP.glob("scripts/benchmarks/*.py")]
        assert any(f"def {words[2].replace('-', '_')}(" in text for text in texts), words
    elif "monai.bundle" in words:
        from segan_monai.check import read_arguments, unknown_overrides

        given = read_arguments(words[words.index("monai.bundle") + 2 :])
        files = given["config_file"]
        keys = workspaces.config_keys(files, folder)
        assert unknown_overrides(files, dict.fromkeys(keys), set(given) - {"run_id", "config_file"}) == []


def test_the_python_example_writes_a_mask_on_the_grid_of_its_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    voxels, affine = np.random.default_rng(0).random((32, 40, 6), np.float32), np.diag([2.0, 1.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), "image.nii.gz")
    nibabel.save(nibabel.Nifti1Image((voxels > 0.5).astype(np.uint8), affine), "label.nii.gz")
    names: dict = {}
    exec(compile(script_of(TOP / "README.md", "python"), "README.md", "exec"), names)
    mask = nibabel.load("mask.nii.gz")
    assert mask.shape == voxels.shape
    assert np.array_equal(mask.affine, affine)
    assert set(np.unique(mask.dataobj)) <= {0, 1}
    for network in ("segmentor", "critics"):
        assert all(weight.grad.abs().sum() > 0 for weight in names[network].parameters() if weight.ndim > 1), network


def test_the_page_from_python_runs_as_printed(tmp_path, monkeypatch):
    (tmp_path / "bundles").symlink_to(TOP / "bundles")
    monkeypatch.chdir(tmp_path)
    voxels = np.random.default_rng(0).random((36, 50, 34), np.float32) * 100
    affine = np.array([[-1.0, 0, 0, 9], [0, 0, 2, 3], [0, 1, 0, 5], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), "image.nii.gz")
    nibabel.save(nibabel.Nifti1Image((voxels // 34).astype(np.uint8), affine), "label.nii.gz")
    names: dict = {}
    exec(compile(script_of(TOP / "docs" / "from_python.md", "python"), "from_python.md", "exec"), names)
    label_map = nibabel.load("label_map.nii.gz")
    assert label_map.shape == (36, 34, 50)
    assert nibabel.aff2axcodes(label_map.affine) == ("R", "A", "S")
    in_ras = nibabel.as_closest_canonical(nibabel.load("image.nii.gz"))
    assert np.allclose(label_map.affine, in_ras.affine)
    assert names["network"].training is False
    assert set(names["trainer"].state.output["terms"]) == {"critic_l1", "segmentor_l1"}
    assert max(float(weight.detach().abs().max()) for weight in names["convolutions"]) <= 0.01


def test_the_statistics_of_a_federated_client_as_printed(tmp_path, monkeypatch, process_as_before):
    (tmp_path / "bundles").symlink_to(TOP / "bundles")
    write_sample_data(tmp_path / "data" / "a", ["MRI"], [1, 2], cases=6)
    monkeypatch.chdir(tmp_path)
    (script,) = (text for text in blocks_of(TOP / "docs" / "federated.md", "python") if "MonaiAlgoStats" in text)
    names: dict = {}
    exec(compile(script, "federated.md", "exec"), names)
    counts = {part: found["data_count"] for part, found in names["found"].items()}
    assert counts == {"train": 4, "eval": 2, "total_data": 6}
    written = {file.name for file in (tmp_path / "federated" / "a").iterdir()}
    assert {"statistics", "train_data_stats.yaml", "eval_data_stats_by_case.yaml"} <= written
    assert {file.name for file in tmp_path.iterdir()} == {"bundles", "data", "federated"}


def test_an_unknown_program_fails(workspace, tmp_path):
    with pytest.raises(AssertionError, match="wget: command not found"):
        calls_of("wget https://example.org", workspace, tmp_path)


def test_bash_takes_the_commands_apart(workspace, tmp_path):
    script = "bundle=a/b   # a comment\nA=1 segan-monai export onnx \\\n    $bundle --set \"k={'l': [1, 2]}\"\n"
    assert calls_of(script, workspace, tmp_path) == [
        (str(workspace), "segan-monai", "export", "onnx", "a/b", "--set", "k={'l': [1, 2]}")
    ]
