# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Small generated data sets for the bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from segan_monai.data import write_phantoms


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Four simulated cases at 8 mm in the layout of BraTS 2021."""
    folder = tmp_path_factory.mktemp("phantoms") / "brats"
    write_phantoms(folder, cases=4, seed=0, spacing_mm=8.0, layout="brats2021", workers=1)
    return folder
