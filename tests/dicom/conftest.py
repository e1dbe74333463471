# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Results of a series without inference: each segment is a block of a label map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segan_monai.dicom.identity import prepare_headers
from segan_monai.dicom.seg import Algorithm, segmentation
from segan_monai.dicom.segments import segments_of
from segan_monai.dicom.study import read_study
from segan_monai.dicom.volumes import SeriesVolume, read_series
from segan_monai.networks import SegANSegmentor
from tests.forked import run_python

ALGORITHM = Algorithm("Test bundle", "1.2.3")
REGIONS = {"first": [1], "second": [2]}


def label_map(shape: tuple[int, ...]) -> np.ndarray:
    """Two blocks of different sizes, asymmetric along every axis (columns, rows, slices)."""
    labels = np.zeros(shape, np.uint8)
    labels[1:4, 2:7, 1:3] = 1
    labels[5:7, 1:3, 2:4] = 2
    return labels


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., SeriesVolume]:
    """Read the only series of a folder."""

    def read_only(folder: Path) -> SeriesVolume:
        study = read_study(folder, tmp_path / "unpacked")
        (series,) = study.series
        return read_series(study, series)

    return read_only


@pytest.fixture
def write_seg(tmp_path: Path) -> Callable[..., Path]:
    """Write a segmentation of a series, and return the file."""

    def write(source: SeriesVolume, array: np.ndarray, kind: str = "binary", **settings: Any) -> Path:
        prepare_headers(source.headers, settings.get("anonymous", False))
        segments = segments_of(settings.get("metadata", {}), settings.get("regions", REGIONS), kind == "labelmap")
        result = segmentation(kind, source, settings.get("others", ()), array, segments, ALGORITHM, "case")
        result.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
        return tmp_path / "seg.dcm"

    return write


SMALL = ("--base_channels", "4", "--full_resolution_channels", "0", "--deep_supervision", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A study in a folder that names the patient, and weights of a small network that is not trained."""
    from tests.dicom.studies import PATIENT, image, write_series  # imports pydicom, which may be absent

    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(1)
    (folder / "weights").mkdir()
    torch.save(SegANSegmentor(7, 2, base_channels=4).state_dict(), folder / "weights" / "model.pt")
    study = folder / f"{PATIENT['PatientName']} {PATIENT['PatientID']}"
    write_series(study, image((32, 40, 12)), description=f"T1 {PATIENT['PatientID']}")
    write_series(study, image(), number=2, description="T2")
    return folder, study


def run_dicom(folder, study, *options):
    """Run the command with the small network."""
    words = ("-m", "segan_monai", "dicom", "hippocampus", study, "--ckpt_dir", "weights", *SMALL, *options)
    return run_python(*words, cwd=folder)
