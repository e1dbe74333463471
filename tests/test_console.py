# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest

pytestmark = pytest.mark.slow


def test_names_that_the_encoding_lacks_are_escaped(tmp_path):
    """A label map, a folder and a region with names that no such console can show."""
    label = np.zeros((4, 5, 6), np.uint8)
    label[1:3, 1:3, 1:3] = 1
    for side in ("вход", "truth"):
        (tmp_path / side).mkdir()
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), tmp_path / side / "患者.nii.gz")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", "from segan_monai.cli.main import main; main()", "evaluate", "--workers", "1"]
    folders = ["--predictions", "вход", "--references", "truth", "--output-dir", "выход", "--regions", "опухоль=1"]
    done = subprocess.run([*command, *folders], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\u043e\\u043f\\u0443\\u0445\\u043e\\u043b\\u044c" in done.stdout, "the region"
    assert (
        (tmp_path / "выход" / "metrics.csv").read_text(encoding="utf-8").splitlines()[1].startswith("患者,опухоль,1,")
    )
