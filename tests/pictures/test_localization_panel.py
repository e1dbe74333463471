# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from matplotlib.image import imread
from monai.data import MetaTensor

from segan_monai.handlers import LocalizationPanel
from tests.networks.known_lsnet import known


def state(*cases: str, bright: float = 1.0) -> SimpleNamespace:
    image = torch.full((1, 32, 48, 3), 0.1)
    image[0, 8:16, 20:40, 1] = bright
    label = torch.zeros(1, 64, 96, 3)
    label[0, 16:32, 40:80, 1] = 2
    batch = [{"case": case, "image": MetaTensor(image), "label": MetaTensor(label)} for case in cases]
    return SimpleNamespace(state=SimpleNamespace(batch=batch))


def test_what_is_shown_is_what_the_network_made_of_the_slice(tmp_path):
    panel = LocalizationPanel(tmp_path / "a" / "localization.png", known(), {"pancreas": [2]}, most=2)
    panel.network.train()  # as an evaluator leaves it after each iteration
    panel.collect(state("x"))
    panel.collect(state("y", "z"))
    assert panel.network.training
    assert [row["case"] for row in panel.rows] == ["x", "y"]
    row = panel.rows[0]
    assert row["image"].shape == (32, 48)
    np.testing.assert_array_equal(row["true"], [[20, 8, 40, 16]])  # the label map, at the network's size
    assert (row["found"] == row["true"]).all()
    assert row["heat"].shape == (8, 12)
    assert row["roi"].shape == (32, 48)
    inside = row["roi_truth"]
    assert 0 < inside.mean() < 1
    assert row["roi"][inside].mean() > 0.9
    assert row["roi"][~inside].mean() < 0.2
    panel.draw(SimpleNamespace())
    assert imread(panel.file).shape[:2] == (704, 1320)


def test_networks_without_rois_leave_no_picture(tmp_path):
    panel = LocalizationPanel(tmp_path / "localization.png", torch.nn.Identity(), {"pancreas": [2]})
    panel.collect(state("x"))
    panel.draw(SimpleNamespace())
    assert not panel.file.exists()


def test_a_slice_without_keypoint(tmp_path):
    panel = LocalizationPanel(tmp_path / "localization.png", known(), {"pancreas": [2]})
    panel.collect(state("x", bright=0.1))
    assert panel.rows[0]["roi"] is None
    assert panel.rows[0]["found"].shape == (0, 4)
    panel.draw(SimpleNamespace())
    assert panel.file.exists()


def test_the_slice_between_its_neighbours_is_shown(tmp_path):
    class SeesTheMiddle(torch.nn.Module):
        def forward(self, x):
            assert x.shape[1] == 3
            return network.localizer_before(x[:, 1:2])

    network = known()
    network.localizer_before = network.localizer.forward
    network.localizer.forward = SeesTheMiddle().forward
    network.segmentor.forward = lambda roi: 50 * (roi[:, 1:2] - 0.5)
    panel = LocalizationPanel(tmp_path / "x.png", network, {"pancreas": [2]}, neighbours=1)
    panel.collect(state("x"))
    (row,) = panel.rows
    assert (row["found"] == row["true"]).all()
    assert row["image"].max() == 1
    assert row["roi"][row["roi_truth"]].mean() > 0.9
