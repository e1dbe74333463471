# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Engine
from scipy.spatial.distance import jensenshannon

from segan_monai.metrics import IntensityHistograms, JensenShannonDivergence, jensen_shannon_divergence


def test_equal_disjoint_and_by_hand():
    assert jensen_shannon_divergence(torch.tensor([[1.0, 3.0], [2.0, 6.0]])).item() == pytest.approx(0, abs=1e-12)
    assert jensen_shannon_divergence(torch.eye(3)).item() == pytest.approx(math.log(3))
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4)
    expected = (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)) / 2
    assert jensen_shannon_divergence(torch.tensor([[2.0, 0.0], [3.0, 3.0]])).item() == pytest.approx(expected)


def test_two_domains_as_scipy():
    torch.manual_seed(0)
    p, q = torch.rand(2, 20)
    assert jensen_shannon_divergence(torch.stack([p, q])).item() == pytest.approx(jensenshannon(p, q) ** 2, rel=1e-4)


def test_one_domain_or_none():
    assert jensen_shannon_divergence(torch.tensor([[1.0, 3.0]])).item() == 0
    assert jensen_shannon_divergence(torch.zeros(2, 3)).item() == 0
    assert IntensityHistograms(["a", "b"]).divergence() == 0


def test_counts_are_those_of_the_voxels_without_background():
    histograms = IntensityHistograms(["a"])
    histograms.add(torch.tensor([0.0, 0.0, 1.0, 1.0, -3.0]), "a")
    histograms.add(torch.tensor([[2.0, 0.0]]), "a")
    assert histograms.counts.sum() == 4
    edges, (frequencies,) = histograms.histograms(bins=5, trim=0.0)
    assert (edges[0].item(), edges[-1].item()) == (-3, 2)
    assert frequencies.tolist() == [0.25, 0, 0, 0, 0.75]


def test_unit_and_offset_do_not_matter_and_shape_does():
    torch.manual_seed(0)
    one, other = torch.rand(20000) + 1, torch.rand(20000) ** 2 + 1
    divergences = []
    for scale in (1, 1000, -64):
        histograms = IntensityHistograms(["a", "b"])
        histograms.add(one * scale, "a")
        histograms.add(other * scale, "b")
        divergences.append(histograms.divergence(32))
    assert divergences == pytest.approx([divergences[0]] * 3, rel=0.05)
    assert 0.03 < divergences[0] < 0.3
    same = IntensityHistograms(["a", "b"])
    same.add(one, "a")
    same.add(torch.rand(20000) + 1, "b")
    assert same.divergence(32) < 0.005


def test_a_metric_over_an_epoch():
    batches = [
        ([torch.full((1, 4), 1.0), torch.full((1, 4), 1.0)], [0, 1]),
        (torch.full((1, 1, 4), 5.0), torch.tensor([1])),
    ]
    engine = Engine(lambda engine, batch: batch)
    metric = JensenShannonDivergence([0, 1], bins=2)
    metric.attach(engine, "jsd")
    for _ in range(2):  # a second epoch starts anew
        engine.run(batches)
        expected = (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)) / 2
        assert engine.state.metrics["jsd"] == pytest.approx(expected)
