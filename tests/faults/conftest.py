# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Data for runs that go wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture(scope="session")
def hippocampi(tmp_path_factory, write_volume):
    """Eight cases of 14 x 16 x 8 voxels in decathlon format."""
    folder = tmp_path_factory.mktemp("faults") / "Task04_Hippocampus"
    generator = np.random.default_rng(0)
    training = []
    for index in range(8):
        label = np.zeros((14, 16, 8), np.uint8)
        label[4:9, 3:8, 2:6] = 1
        label[4:9, 8:12, 2:6] = 2
        image = (generator.normal(100, 10, label.shape) + 50 * label).astype(np.float32)
        name = f"case_{index}.nii.gz"
        for kind, array in (("imagesTr", image), ("labelsTr", label)):
            write_volume(folder / kind / name, array, np.eye(4))
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    content = {"name": "Hippocampus", "modality": {"0": "MRI"}, "labels": labels, "training": training}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
