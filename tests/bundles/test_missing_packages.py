# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""NIfTI needs neither SimpleITK, ITK nor nilearn, so a machine can do without these 200 MB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import sys
sys.modules |= dict.fromkeys(("SimpleITK", "itk", "nilearn"))  # None: importing them fails
import segan_monai.cli.main
from tests.bundles.workflow import HIPPOCAMPUS, run_workflow
data, folder = sys.argv[1:]
for run_id in ("training", "evaluating", "inference"):
    settings = {"dataset_dir": data, "ckpt_dir": f"{folder}/models", "output_dir": f"{folder}/{run_id}"}
    run_workflow(HIPPOCAMPUS, run_id, **settings)
"""


@pytest.mark.slow
def test_training_evaluation_and_inference_on_nifti(hippocampi, tmp_path):
    command = [sys.executable, "-c", RUN, str(hippocampi), str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "models" / "model.pt").is_file()
    assert (tmp_path / "evaluating" / "summary.json").is_file()
    assert len(list((tmp_path / "inference").glob("*_seg.nii.gz"))) == 4
