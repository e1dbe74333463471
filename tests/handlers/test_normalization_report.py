# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import pytest
from matplotlib.image import imread

from segan_monai.handlers import NormalizationReport
from tests.handlers.normalizations import REGIONS, run


def test_domains_that_differ_become_alike(tmp_path):
    run(NormalizationReport(tmp_path, REGIONS, ["a", "b"]))
    found = json.loads((tmp_path / "normalization.json").read_text(encoding="utf-8"))["jensen_shannon_divergence_nats"]
    assert found["input"]["dark"] == pytest.approx(math.log(2), abs=0.03), "hardly an intensity of it in both domains"
    assert found["input"]["whole image"] < 0.1, "inverted, but with the same histogram"
    assert all(value < 1e-9 for value in found["normalized"].values())
    height, width = imread(tmp_path / "histograms.png").shape[:2]
    assert (height, width) == (pytest.approx(648, abs=2), pytest.approx(1152, abs=2))
