# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import pytest
import torch
from ignite.engine import Engine
from matplotlib.image import imread
from monai.data import MetaTensor

from segan_monai.handlers import NormalizationReport

REGIONS = {"dark": [1], "bright": [2]}


def volume(values):
    return MetaTensor(torch.as_tensor(values).float(), affine=torch.eye(4))


def make_case(name, domain):
    """Two halves; domain b is a with its contrast inverted, and the normalized images are alike."""
    torch.manual_seed(0)
    label = torch.zeros(1, 20, 20, 6)
    label[:, 2:10, 2:18], label[:, 10:18, 2:18] = 1, 2
    noise = torch.rand(label.shape)
    normalized = (label + noise) * (label > 0)
    image = normalized if domain == "a" else (4 - normalized) * (label > 0)
    batch = {"case": name, "domain": domain, "label": volume(label)}
    return batch, {"input": volume(image), "normalized": volume(normalized), "pred": volume(label)}


def run(handler):
    cases = [make_case("1", "a"), make_case("2", "b"), make_case("3", "a")]

    def process(engine, case):
        engine.state.batch, output = [case[0]], [case[1]]
        return output

    engine = Engine(process)
    handler.attach(engine)
    engine.run(cases)
    return handler


def test_domains_that_differ_become_alike(tmp_path):
    run(NormalizationReport(tmp_path, REGIONS, ["a", "b"]))
    found = json.loads((tmp_path / "normalization.json").read_text(encoding="utf-8"))["jensen_shannon_divergence_nats"]
    assert found["input"]["dark"] == pytest.approx(math.log(2), abs=0.03), "hardly an intensity of it in both domains"
    assert found["input"]["whole image"] < 0.1, "inverted, but with the same histogram"
    assert all(value < 1e-9 for value in found["normalized"].values())
    height, width = imread(tmp_path / "histograms.png").shape[:2]
    assert (height, width) == (pytest.approx(648, abs=2), pytest.approx(1152, abs=2))
