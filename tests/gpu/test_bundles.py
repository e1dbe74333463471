# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The hippocampus bundle on a GPU: training, evaluation, inference, and what `check` says of its memory."""

from __future__ import annotations

import json

import pytest
import torch

from segan_monai.check import check_command_line
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS, run_workflow
from tests.gpu.devices import DEVICES

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("process_as_before")]

SETTINGS = {"folds": 2, "batch_size": 64, "slices_per_volume": 32, "base_channels": 64, "slice_size": [48, 48]}


@pytest.mark.parametrize("device", DEVICES)
def test_train_evaluate_and_infer(device, hippocampi, tmp_path):
    for run_id in ("training", "evaluating", "inference"):
        settings = {"dataset_dir": str(hippocampi), "ckpt_dir": str(tmp_path / "models"), "device": device}
        run_workflow(HIPPOCAMPUS, run_id, output_dir=str(tmp_path / run_id), **settings)
    assert json.loads((tmp_path / "evaluating" / "summary.json").read_text(encoding="utf-8"))["regions"]
    assert len(list((tmp_path / "inference").glob("*_seg.nii.gz"))) == 4


@pytest.mark.gpu
def test_the_memory_that_check_measures_is_what_a_training_takes(hippocampi, tmp_path):
    settings = {**SETTINGS, "dataset_dir": str(hippocampi), "ckpt_dir": str(tmp_path / "models"), "device": "cuda"}
    given = {"run_id": "training", "config_file": [str(BUNDLES / HIPPOCAMPUS / "configs" / "train.json")]}
    report, _ = check_command_line({**given, **settings, "output_dir": str(tmp_path / "out")}, processes=1)
    assert report.findings == []
    estimate = report.measured["step"]["device_peak_gib"]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run_workflow(HIPPOCAMPUS, "training", output_dir=str(tmp_path / "run"), epochs=2, **settings)
    used = torch.cuda.max_memory_allocated() / 2**30
    assert used > 0.05, "more than the libraries"
    assert estimate == pytest.approx(used, rel=0.25)
