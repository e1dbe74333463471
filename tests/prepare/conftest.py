# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""CT series as real DICOM files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK


@pytest.fixture(scope="session")
def write_series() -> Callable[..., list[Path]]:
    """Write Hounsfield units (columns, rows, slices) as DICOM, a file a slice; returns them from below to above."""

    def write(
        folder: Path,
        values: np.ndarray,
        affine: np.ndarray,
        patient: str = "PANCREAS_0001",
        uid: str = "1.2.826.0.1.3680043.2.1125.1",
        intercept: float = 0.0,
        names: str = "{number:03d}.dcm",
        modality: str = "CT",
    ) -> list[Path]:
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

    return write
