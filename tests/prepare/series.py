# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""CT series as real DICOM files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

# columns to the left, rows to the back, as scanners store them
LPS = np.array([[-0.7, 0, 0, 120.5], [0, -0.7, 0, 90.25], [0, 0, 2.5, -300], [0, 0, 0, 1]])


def write_series(
    folder: Path,
    values: np.ndarray,
    affine: np.ndarray,
    patient: str = "PANCREAS_0001",
    uid: str = "1.2.826.0.1.3680043.2.1125.1",
    intercept: float = 0.0,
    names: str = "{number:03d}.dcm",
    modality: str = "CT",
) -> list[Path]:
    """Write Hounsfield units (columns, rows, slices) as DICOM, a file a slice; returns them from below to above."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    files = []
    for index in range(values.shape[2]):
        plane = SimpleITK.GetImageFromArray(np.ascontiguousarray(values[:, :, index : index + 1].T, np.int16))
        plane.SetSpacing(spacing.tolist())
        tags = {
            "0008|0060": modality,
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{index + 1}",
            "0010|0010": patient,
            "0010|0020": patient,
            "0020|000d": "1.2.826.0.1.3680043.2.1125",
            "0020|000e": uid,
            "0020|0013": str(values.shape[2] - index),
            "0020|0032": "\\".join(f"{mm:.6f}" for mm in lps[:3, 3] + index * lps[:3, 2]),
            "0020|0037": "\\".join(f"{cosine:.6f}" for cosine in (*axes[:, 0], *axes[:, 1])),
            "0028|1052": f"{intercept:g}",
            "0028|1053": "1",
        }
        for key, value in tags.items():
            plane.SetMetaData(key, value)
        file = folder / names.format(number=index * 7919 % 101)  # an order that is not the slices'
        writer.SetFileName(str(file))
        writer.Execute(plane)
        files.append(file)
    return files


def write_pancreas(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """A patient as TCIA hands him out; his label map is stored upside down, in a frame of its own."""
    image = np.random.default_rng(0).integers(-1000, 1000, (12, 10, 8)).astype(np.int16)
    organ = np.zeros(image.shape, np.uint8)
    organ[1:4, 2:4, 5:7] = 1
    image[organ > 0] = 100
    write_series(folder / "Pancreas-CT/PANCREAS_0001/11-24-2015-1/Pancreas-18957", image, LPS)
    labels = folder / "TCIA_pancreas_labels-02-05-2017"
    labels.mkdir()
    for name in ("label0001.nii.gz", "label0025.nii.gz"):
        stored = np.flip(organ, 1)
        nibabel.save(nibabel.Nifti1Image(stored, np.diag([-0.7, 0.7, 2.5, 1])), labels / name)
    return image, organ
