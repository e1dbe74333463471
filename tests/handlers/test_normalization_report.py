# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import pytest
from matplotlib.image import imread

from segan_monai.handlers import NormalizationReport
from tests.handlers.normalizations import REGIONS, run


def test_change_of_each_case_and_domain(tmp_path, caplog):
    (tmp_path / "summary.json").write_text('{"cases": 3}', encoding="utf-8")
    rows = ["case,region,dice", *(f"{case},tissue,{dice}" for case, dice in ((1, 0.5), (2, 0.1), ("NA", 0.3)))]
    (tmp_path / "metrics.csv").write_text("\n".join(rows), encoding="utf-8")
    with caplog.at_level("INFO"):
        run(NormalizationReport(tmp_path, REGIONS, ["a", "b"]))
    found = json.loads((tmp_path / "normalization.json").read_text(encoding="utf-8"))
    assert list(found["cases"]) == ["1", "2", "NA"]
    assert found["cases"]["1"]["ssim_to_input"] == pytest.approx(1, abs=1e-5), "domain a is normalized already"
    assert found["cases"]["2"]["domain"] == "b"
    assert found["change"]["b"]["ssim_to_input"] < 0.2, "inverted"
    for stage in ("input", "normalized"):  # neither a mirrored contrast nor an offset changes it
        assert found["change"]["b"][f"total_variation_{stage}"] == pytest.approx(
            found["change"]["a"]["total_variation_normalized"], rel=1e-5
        )
    # uniform noise differs by 1/3 on average; 15 x 16 x 6, 16 x 15 x 6 and 16 x 16 x 5 pairs, 16 x 6 of them across
    # the two halves, which differ by 1 more
    assert found["change"]["a"]["total_variation_input"] == pytest.approx(1 / 3 + 96 / 4160 * 2 / 3, abs=0.02)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    dice = {"a": {"tissue": pytest.approx(0.4)}, "b": {"tissue": 0.1}}
    assert summary == {"cases": 3, "normalization": found["change"], "dice_of_domains": dice}
    assert "Dice of a: tissue 0.400" in caplog.text
    assert "normalization of b: ssim_to_input " in caplog.text


def test_domains_that_differ_become_alike(tmp_path):
    run(NormalizationReport(tmp_path, REGIONS, ["a", "b"]))
    found = json.loads((tmp_path / "normalization.json").read_text(encoding="utf-8"))["jensen_shannon_divergence_nats"]
    assert found["input"]["dark"] == pytest.approx(math.log(2), abs=0.03), "hardly an intensity of it in both domains"
    assert found["input"]["whole image"] < 0.1, "inverted, but with the same histogram"
    assert all(value < 1e-9 for value in found["normalized"].values())
    height, width = imread(tmp_path / "histograms.png").shape[:2]
    assert (height, width) == (pytest.approx(648, abs=2), pytest.approx(1152, abs=2))
