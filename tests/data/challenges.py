# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Small folders in the layouts of the iSEG 2017 and MRBrainS 2013 challenges."""

from __future__ import annotations

import nibabel
import numpy as np


def write_analyze(path, array):
    """An Analyze pair as the challenge has them: four dimensions, 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.AnalyzeImage(array[..., None], np.diag([1.0, 1, 1, 1]))
    image.header.set_zooms((1, 1, 1, 1))
    nibabel.save(image, path)


def write_iseg(folder, subjects=2):
    generator = np.random.default_rng(0)
    for number in range(1, subjects + 1):
        label = np.zeros((20, 24, 16), np.uint8)
        label[4:16, 4:20, 3:13] = generator.choice([10, 150, 250], (12, 16, 10))
        t1 = (label.astype(np.int16) * 2 + generator.integers(1, 50, label.shape, dtype=np.int16)) * (label > 0)
        for kind, array in (("T1", t1), ("T2", t1[::-1]), ("label", label)):
            write_analyze(folder / f"subject-{number}-{kind}.img", array)
    return folder


MRBRAINS_SPACING = (0.958, 0.958, 3.0)


def write_mrbrains(folder, subjects=("1", "2"), labels=("LabelsForTraining", "LabelsForTesting")):
    """Folders as the challenge has them: a head with skull, all scans but the 1 mm one on the labels' grid."""
    generator = np.random.default_rng(1)
    affine = np.diag([-MRBRAINS_SPACING[0], -MRBRAINS_SPACING[1], MRBRAINS_SPACING[2], 1])
    for subject in subjects:
        eight = np.zeros((24, 28, 12), np.uint8)
        eight[4:20, 4:24, 2:10] = generator.integers(1, 9, (16, 20, 8))
        merged = np.array([0, 2, 2, 3, 3, 1, 1, 0, 0], np.uint8)[eight]
        t1 = (generator.integers(20, 40, eight.shape) + 100 * merged).astype(np.int16)
        (folder / subject).mkdir(parents=True)
        volumes = {"T1": t1, "T1_IR": t1, "T2_FLAIR": t1, "LabelsForTraining": eight, "LabelsForTesting": merged}
        for name, volume in volumes.items():
            if not name.startswith("Labels") or name in labels:
                nibabel.save(nibabel.Nifti1Image(volume, affine), folder / subject / f"{name}.nii")
        fine = nibabel.Nifti1Image(t1.repeat(3, axis=2), np.diag([1.0, 1, 1, 1]))
        nibabel.save(fine, folder / subject / "T1_1mm.nii")
    return folder
