# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What a user types, in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS
from tests.forked import run_python

pytestmark = pytest.mark.slow

TOP = BUNDLES.parent


def monai_bundle(run_id, bundle, config, *options, cwd=TOP, overlay=None):
    file = str(BUNDLES / bundle / "configs" / config)
    config_file = str([file, str(TOP / "configs" / overlay)]) if overlay else file
    return run_python("-m", "monai.bundle", "run", run_id, "--config_file", config_file, *options, cwd=cwd)


def small(output, models):
    sizes = ["--base_channels", "4", "--epochs", "1", "--batch_size", "4", "--folds", "2", "--slice_size", "[32,32]"]
    return [*sizes, "--output_dir", output, "--ckpt_dir", models]


def test_train_with_an_overlay_then_resume_from_another_folder(phantoms, tmp_path):
    options = ["--dataset_dir", phantoms, *small(tmp_path / "run", tmp_path / "models")]
    first = monai_bundle("training", BRATS, "train.json", *options, "--amp", "false", overlay="quick_cpu.json")
    assert first.returncode == 0, first.stderr
    assert "epoch 1/1  critic_l1 " in first.stdout
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["amp"] is False
    assert record["config"]["supervised_weight"] == 1.0, "from the overlay"
    printed = first.stdout + first.stderr
    assert not any(sign in printed for sign in ("\r", "█", "%|")), "progress bars are quiet when not on a terminal"

    # `run` is the same as `training`
    resumed = monai_bundle("run", BRATS, "train.json", *options, "--resume", "true", "--epochs", 2, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from" in resumed.stdout
    assert "epoch 2/2  critic_l1 " in resumed.stdout


def test_folders_are_those_that_were_typed(phantoms, tmp_path):
    shutil.copytree(phantoms, tmp_path / "patient #2")
    (tmp_path / "patient").mkdir()  # what MONAI makes of it
    files = [str(BUNDLES / BRATS / "configs" / "train.json"), str(TOP / "configs" / "quick_cpu.json")]
    arguments = {"config_file": files, "dataset_dir": "patient #2", "output_dir": "result #2", "check": False}
    (tmp_path / "args.json").write_text(json.dumps(arguments), encoding="utf-8")
    options = ["training", "--args_file", "args.json", *small("20240131", "~/models"), "--check", "true"]

    home = {**os.environ, "HOME": str(tmp_path / "home")}
    checked = run_python("-m", "segan_monai", "check", "--quick", *options, cwd=tmp_path, env=home)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.splitlines()[-1] == "written: 20240131/check/check.json"
    assert "headers         ok                     4 cases" in checked.stdout
    command = [sys.executable, "-m", "monai.bundle", "run", *options]
    trained = subprocess.run(command, cwd=tmp_path, env=home, capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "20240131" / "model.pt").is_file()
    assert (tmp_path / "home" / "models" / "model.pt").is_file()
    split = json.loads((tmp_path / "20240131" / "split.json").read_text(encoding="utf-8"))
    assert len(split["training"]) + len(split["validation"]) == 4
    assert {file.name for file in tmp_path.iterdir()} == {"patient", "patient #2", "args.json", "home", "20240131"}


def test_a_typo_stops_the_run_and_the_last_line_says_what_to_type(phantoms, tmp_path):
    options = ["--dataset_dir", phantoms, *small(tmp_path / "run", tmp_path)]
    result = monai_bundle("training", BRATS, "train.json", *options, "--learning_rte", "9")
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: unknown key --learning_rte: ")
    assert "Did you mean --learning_rate" in last
    (tmp_path / "own.json").write_text('{"learning_rte": 9}', encoding="utf-8")
    result = monai_bundle("training", BRATS, "train.json", *options, overlay=tmp_path / "own.json")
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert "own.json has the key 'learning_rte', which nothing reads" in last
    assert "Did you mean learning_rate" in last


@pytest.mark.real_data
def test_hippocampus_from_training_to_nifti(data_dir, tmp_path):
    data = ["--dataset_dir", data_dir / "msd_hippocampus", "--ckpt_dir", tmp_path / "models"]
    options = ["--epochs", "12", "--max_cases", "60", "--val_interval", "12", "--output_dir", tmp_path / "run"]
    trained = monai_bundle("training", HIPPOCAMPUS, "train.json", *data, *options, overlay="cpu.json")
    assert trained.returncode == 0, trained.stderr
    subset = ["--subset", "validation", "--output_dir", tmp_path / "evaluation"]
    evaluated = monai_bundle("evaluating", HIPPOCAMPUS, "evaluate.json", *data, *subset, overlay="cpu.json")
    assert evaluated.returncode == 0, evaluated.stderr
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    # A tenth of the iterations of a whole training: below its result, far above chance.
    assert all(region["dice"]["mean"] > 0.6 for region in summary["regions"].values()), summary
    for prediction in (tmp_path / "evaluation").glob("*_seg.nii.gz"):
        name = prediction.name.replace("_seg", "")
        image = nibabel.load(data_dir / "msd_hippocampus" / "imagesTr" / name)
        label_map = nibabel.load(prediction)
        assert label_map.shape == image.shape
        np.testing.assert_allclose(label_map.affine, image.affine, atol=1e-5)


@pytest.mark.real_data
def test_brats_bundle_on_real_brains_with_one_region(data_dir, tmp_path):
    common = ["--dataset_dir", data_dir / "open_ms", "--regions", "{'lesion': [1]}", "--ckpt_dir", tmp_path / "models"]
    sizes = ["--base_channels", "4", "--slice_size", "[160,160]"]
    options = ["--folds", "2", "--epochs", "2", "--output_dir", tmp_path / "run"]
    trained = monai_bundle("training", BRATS, "train.json", *common, *sizes, *options, overlay="quick_cpu.json")
    assert trained.returncode == 0, trained.stderr
    options = ["--output_dir", tmp_path / "out"]
    inferred = monai_bundle("inference", BRATS, "inference.json", *common, *sizes, *options, overlay="cpu.json")
    assert inferred.returncode == 0, inferred.stderr
    for case in ("patient19", "patient26"):
        image = nibabel.load(data_dir / "open_ms" / case / f"{case}_flair.nii.gz")
        label_map = nibabel.load(tmp_path / "out" / f"{case}_seg.nii.gz")
        assert label_map.shape == image.shape
        assert label_map.get_data_dtype() == np.uint8
        np.testing.assert_allclose(label_map.affine, image.affine, atol=1e-5)
