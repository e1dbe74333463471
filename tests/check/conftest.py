# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

SHAPE = (8, 9, 7)
UPRIGHT = np.diag([1.0, 1, 2, 1])


@pytest.fixture
def cases(tmp_path, write_volume):
    """Six good cases: one image, one label map."""
    random = np.random.default_rng(0)
    found = []
    for index in range(6):
        label = np.zeros(SHAPE, np.uint8)
        label[2:4, 2:5, 2:5], label[4:6, 2:5, 2:5] = 1, 2
        label[index, 0, 0] = 1
        image = write_volume(tmp_path / f"image_{index}.nii.gz", random.normal(100, 10, SHAPE).astype("f4"), UPRIGHT)
        file = write_volume(tmp_path / f"label_{index}.nii.gz", label, UPRIGHT)
        found.append({"case": f"c{index}", "subject": f"c{index}", "image": str(image), "label": str(file)})
    return found


@pytest.fixture
def rewrite(write_volume):
    """Change the voxels or the affine of a NIfTI file."""

    def change(file, function=lambda voxels: voxels, affine=None):
        image = nibabel.load(file)
        voxels = function(np.asarray(image.dataobj))
        write_volume(Path(file), voxels, image.affine if affine is None else affine)

    return change
