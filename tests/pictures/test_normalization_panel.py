# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from matplotlib.image import imread

from segan_monai.handlers import NormalizationPanel
from tests.handlers.normalizations import REGIONS, run


def test_a_row_a_domain(tmp_path):
    panel = run(NormalizationPanel(tmp_path / "normalization.png", REGIONS, {"dark": [1], "bright": [2]}))
    assert {domain: row["case"] for domain, row in panel.rows.items()} == {"a": "1", "b": "2"}
    assert (panel.rows["a"]["reference"] == panel.rows["b"]["prediction"]).all()
    assert set(panel.rows["a"]["reference"].ravel().tolist()) == {0, 1, 2}
    height, width = imread(tmp_path / "normalization.png").shape[:2]
    assert (height, width) == (pytest.approx(120 * 6.4, abs=2), pytest.approx(1320, abs=2))
