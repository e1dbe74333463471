# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests: the folder of real data, and small volumes written as files."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from segan_monai.data import write_phantoms
from tests.bundles.datasets import write_brains, write_hippocampi, write_photographs, write_slices
from tests.durations import DurationsTable

# 30 degrees about z, spacing 1 x 2 x 3 mm, an origin off the grid: right-handed and far from any axis
OBLIQUE = np.array(
    [
        [np.cos(np.pi / 6), -2 * np.sin(np.pi / 6), 0, -12.5],
        [np.sin(np.pi / 6), 2 * np.cos(np.pi / 6), 0, 7.25],
        [0, 0, 3, 40],
        [0, 0, 0, 1],
    ]
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the seconds per test file."""
    parser.addoption("--durations-table", metavar="FILE", type=Path, help="write the seconds per test file as Markdown")


def pytest_configure(config: pytest.Config) -> None:
    """Measure in the process that sees all reports: the only one, or pytest-xdist's controller."""
    file = config.getoption("durations_table")
    if file is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(DurationsTable(file, config.getoption("markexpr")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files by their number of slow tests, most first, and skip tests that need a GPU where there is none.

    Processes take whole files in this order, so the last ones are short and all processes end together.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])  # stable: files stay whole
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU: scripts/gpu_check.sh"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that SEGAN_MONAI_DATA names."""
    folder = os.environ.get("SEGAN_MONAI_DATA")
    if not folder:
        pytest.skip("real data: set SEGAN_MONAI_DATA to the folder that holds open_ms, msd_hippocampus, ...")
    if not Path(folder).is_dir():
        pytest.fail(f"SEGAN_MONAI_DATA={folder}: no such folder")
    return Path(folder)


@pytest.fixture
def process_as_before(monkeypatch) -> Iterator[None]:
    """What a run sets for its process (except hook, log files, determinism) does not outlive the test."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    handlers = list(logging.getLogger().handlers)
    deterministic = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    logging.getLogger().handlers[:] = handlers
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic


@pytest.fixture
def oblique() -> np.ndarray:
    """An oblique affine (RAS, mm)."""
    return OBLIQUE.copy()


@pytest.fixture(scope="session")
def write_volume() -> Callable[..., Path]:
    """Write an array (H, W, D[, C]) with a RAS affine as NIfTI, MetaImage or NRRD, and return the path."""

    def write(path: Path, array: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith((".nii", ".nii.gz")):
            nibabel.save(nibabel.Nifti1Image(array, affine), path)
            return path
        import SimpleITK  # a GPU machine may lack it

        image = SimpleITK.GetImageFromArray(array.T)
        lps = np.diag([-1, -1, 1, 1]) @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        SimpleITK.WriteImage(image, str(path))
        return path

    return write


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Four simulated cases at 8 mm in the layout of BraTS 2021."""
    folder = tmp_path_factory.mktemp("phantoms") / "brats"
    write_phantoms(folder, cases=4, seed=0, spacing_mm=8.0, layout="brats2021", workers=1)
    return folder


@pytest.fixture
def hippocampi(tmp_path, oblique, write_volume) -> Path:
    """Four small cases in Decathlon format, one with an oblique affine."""
    return write_hippocampi(tmp_path / "Task04_Hippocampus", oblique, write_volume)


@pytest.fixture(scope="session")
def brains(tmp_path_factory) -> Path:
    """Two subjects of each of the iSEG 2017 and MRBrainS 2013 challenges, in one folder."""
    return write_brains(tmp_path_factory.mktemp("brains"))


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """Eight photographs in the layout of ISIC 2017: four for training, two for validation, two for test."""
    return write_photographs(tmp_path_factory.mktemp("isic"))


@pytest.fixture(scope="session")
def slices(tmp_path_factory) -> Path:
    """Eight slices of four patients as JPEG, with masks."""
    return write_slices(tmp_path_factory.mktemp("slices"))
