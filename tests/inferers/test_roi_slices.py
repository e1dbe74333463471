# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""RoIs of whole volumes: which slice they belong to, and where they lie."""

from __future__ import annotations

import pytest
import torch

from segan_monai.inferers import RoISliceInferer
from tests.networks.known_lsnet import known


@pytest.fixture
def volume():
    """Two volumes of five slices; objects in slice 3 of the first, 0 and 4 of the second; air elsewhere in slice 1."""
    volume = torch.zeros(2, 1, 64, 96, 5)
    volume[:, 0, 50:, :, [0, 2, 3, 4]] = 0.1
    volume[0, 0, 10:30, 40:70, 3] = 1
    volume[1, 0, 5:25, 60:90, 0] = 1
    volume[1, 0, 30:40, 10:30, 4] = 1
    return volume


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_rois_know_their_volume_and_slice(batch_size, volume):
    inferer = RoISliceInferer(batch_size=batch_size)
    logits = inferer(volume, known())
    assert logits.shape == volume.shape
    table = inferer.found
    assert table[:, [0, 1, 2]].tolist() == [[0, 3, 0], [1, 0, 0], [1, 4, 0]]
    expected = [[40, 10, 70, 30], [60, 5, 90, 25], [10, 30, 30, 40]]
    torch.testing.assert_close(table[:, 4:], torch.tensor(expected, dtype=torch.float32))
    truth = volume > 0.5
    assert 2 * ((logits > 0) & truth).sum() / ((logits > 0).sum() + truth.sum()) > 0.97


def test_any_axis_and_padding(volume):
    turned = volume.movedim(-1, 2).contiguous()
    inferer = RoISliceInferer(axis=0, min_size=(128, 128))
    assert inferer(turned, known()).shape == turned.shape
    assert inferer.found[:, 1].tolist() == [3, 0, 4]
    torch.testing.assert_close(inferer.found[0, 4:], torch.tensor([40.0, 10, 70, 30]))


def test_slices_without_roi_never_reach_the_segmentor(volume):
    network = known()
    RoISliceInferer()(volume, network)
    assert network.segmentor.shown == 3


def test_an_empty_volume_and_a_network_without_rois():
    inferer = RoISliceInferer()
    logits = inferer(torch.zeros(1, 1, 32, 32, 2), known())
    assert (logits < -10).all()
    assert inferer.found.shape == (0, 8)
    inferer(torch.zeros(1, 1, 32, 32, 2), torch.nn.Conv2d(1, 1, 1))
    assert inferer.found is None


@pytest.mark.parametrize(("channel", "shift"), [(0, 1), (1, 0), (2, -1)])
def test_both_stages_see_the_slice_before_and_the_one_after(channel, shift, volume):
    """Slice z shows channel 0 what lies in z - 1; the first and the last slice have no slice beyond them."""
    network = known()
    for stage in (network.localizer, network.segmentor):
        stage.register_forward_pre_hook(lambda _, images: images[0][:, channel : channel + 1])
    inferer = RoISliceInferer(batch_size=3, neighbours=1, skip_empty=False)
    logits = inferer(volume, network)
    expected = torch.zeros_like(volume, dtype=torch.bool)
    for z in range(5):
        if 0 <= z - shift < 5:
            expected[..., z] = volume[..., z - shift] > 0.5
    assert expected.any()
    assert 2 * ((logits > 0) & expected).sum() / ((logits > 0).sum() + expected.sum()) > 0.97
    objects = [(0, 3), (1, 0), (1, 4)]
    assert inferer.found[:, :2].tolist() == [[case, z + shift] for case, z in objects if 0 <= z + shift < 5]
