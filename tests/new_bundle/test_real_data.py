# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""From an nnU-Net-format copy of real images to a bundle, its training and its evaluation, by what a user types."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segan_monai.cli.main import app
from tests.forked import run_python

pytestmark = pytest.mark.slow

TOP = Path(__file__).parents[2]


def copy_as_nnunet(source, target, cases):
    """The first cases of a decathlon folder as nnU-Net has them."""
    for sub in ("imagesTr", "labelsTr"):
        (target / sub).mkdir(parents=True)
    for entry in json.loads((source / "dataset.json").read_text(encoding="utf-8"))["training"][:cases]:
        name = Path(entry["image"]).name
        shutil.copy(source / entry["image"], target / "imagesTr" / name.replace(".nii.gz", "_0000.nii.gz"))
        shutil.copy(source / entry["label"], target / "labelsTr" / name)
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (target / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return target


@pytest.mark.real_data
def test_three_commands(data_dir, tmp_path):
    data = copy_as_nnunet(data_dir / "msd_hippocampus", tmp_path / "Dataset004_Hippocampus", cases=40)
    bundle = tmp_path / "hippocampus_segmentation"
    options = ["--method", "segan", "--data", str(data), "--output-dir", str(tmp_path), "--processes", "1"]
    made = CliRunner().invoke(app, ["new-bundle", bundle.name, *options])
    assert made.exit_code == 0, made.output
    run = tmp_path / "run"
    for words in (
        ["train", bundle, data, "-o", run, "--epochs", "12"],
        ["evaluate", run, data, "-o", tmp_path / "evaluation"],
    ):
        done = run_python("-m", "segan_monai", *words, cwd=TOP)
        assert done.returncode == 0, done.stderr
    evaluation = tmp_path / "evaluation"
    summary = json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))
    # A twentieth of the epochs that it chose, with which it reaches .81
    assert all(region["dice"]["mean"] > 0.5 for region in summary["regions"].values()), summary
    assert len(list(evaluation.glob("*_seg.nii.gz"))) == 8, "a fifth of the cases, held out"
    assert (evaluation / "report.html").is_file()
    assert (run / "model.pt").is_file()
