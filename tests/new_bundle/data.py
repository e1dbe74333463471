# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Small data sets in nnU-Net's raw format: an ellipsoid in a body, of any channels, spacing and label values."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np

MRI = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
SHAPE = (36, 40, 12)


def write_raw(folder: Path, cases=4, channels=1, content=MRI, spacing=(1.0, 1.0, 2.0), shape=SHAPE, values=(1,), air=0):
    """Cases ``c0``, ``c1``, ...; organ 300 on a body of 100, on `air`; labels: the organ cut along the first axis."""
    generator = np.random.default_rng(0)
    grid = np.indices(shape).astype(float)
    half = np.array(shape).reshape(3, 1, 1, 1) / 2
    body = (((grid - half + 0.5) / (half * 0.9)) ** 2)[:2].sum(axis=0) < 1
    organ = (((grid - half + 0.5) / (half * 0.4)) ** 2).sum(axis=0) < 1
    label = np.zeros(shape, np.uint8)
    for part, value in zip(np.array_split(np.arange(shape[0]), len(values)), values, strict=True):
        label[part] = np.where(organ[part], value, 0)
    affine = np.diag([*spacing, 1])
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for case in range(cases):
        for channel in range(channels):
            image = np.where(organ, 300, np.where(body, 100, air)) + generator.integers(0, 20, shape) * body
            nibabel.save(
                nibabel.Nifti1Image(image.astype(np.int16), affine),
                folder / "imagesTr" / f"c{case}_{channel:04d}.nii.gz",
            )
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / "labelsTr" / f"c{case}.nii.gz")
    if content is not None:
        (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
