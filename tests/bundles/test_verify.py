# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Every bundle passes every check of `segan-monai verify`: the zoo's, the runs, resuming, and each export."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from segan_monai.export import run_onnx
from segan_monai.verify import CHECKS, run_checks
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS, OVERLAYS, PANCREAS, SKIN
from tests.export.block_torch import BLOCK_TORCH

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


@pytest.mark.parametrize("bundle", sorted(folder.name for folder in BUNDLES.iterdir() if folder.is_dir()))
def test_every_check(bundle, tmp_path):
    saved = bundle in (HIPPOCAMPUS, PANCREAS)  # of the others, the export to ONNX begins with torch.export
    names = [name for name in CHECKS if saved or name != "torch-export"]
    results = {check.name: check for check in run_checks(BUNDLES / bundle, work_dir=tmp_path, names=names)}
    assert list(results) == names
    skipped = {"weights", "run_onnx"} if bundle == SKIN else {"weights"}  # no weights are shipped; no NIfTI
    for name, check in results.items():
        assert check.result == "ok" or (check.result == "skipped" and name in skipped), check
    assert bundle == SKIN or ", 0 of them" not in results["run_onnx"].detail, "empty label maps would be alike anyway"
    if bundle == HIPPOCAMPUS:
        assert_the_same_without_torch(tmp_path)


def assert_the_same_without_torch(folder):
    image = folder / "data" / "imagesTr" / "case_0.nii.gz"
    arguments = [str(folder / "exports" / "model.onnx"), str(image), "--output", str(folder / "found.nii.gz")]
    script = f"import runpy; sys.argv[1:] = {arguments!r}; runpy.run_path({run_onnx.__file__!r}, run_name='__main__')"
    subprocess.run([sys.executable, "-c", BLOCK_TORCH + script], check=True)
    expected, found = (nibabel.load(folder / file) for file in ("inference/case_0_seg.nii.gz", "found.nii.gz"))
    assert np.array_equal(np.asanyarray(found.dataobj), np.asanyarray(expected.dataobj))
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)
    assert np.asanyarray(found.dataobj).any()


def test_the_overlay_for_volumes(tmp_path):
    """Training, results and TorchScript of a 3-D network whose bundle describes another one."""
    overlay = json.loads((OVERLAYS / "volumes.json").read_text(encoding="utf-8"))
    settings = {"spatial_dims": overlay["spatial_dims"], "num_levels": 2, "patch_size": [16, 16, 12]}
    names = ["network", "train", "infer", "torchscript"]
    found = list(run_checks(BUNDLES / HIPPOCAMPUS, settings, work_dir=tmp_path, names=names))
    assert [(check.name, check.result) for check in found] == [(name, "ok") for name in names], found
    trained = json.loads(next(tmp_path.rglob("model.json")).read_text(encoding="utf-8"))["settings"]
    assert (trained["spatial_dims"], trained["patch_size"]) == (3, [16, 16, 12])
