# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import nn

from segan_monai.inferers import NormalizingWindowInferer
from segan_monai.networks import NormalizerSegmentor


def test_windows_give_what_the_whole_volume_gives():
    torch.manual_seed(0)
    network = NormalizerSegmentor(nn.Conv3d(1, 3, 1), nn.Conv3d(1, 1, 1)).eval()
    volume = torch.rand(1, 1, 20, 11, 7)
    inferer = NormalizingWindowInferer(roi_size=(8, 8, 8), overlap=0.5, mode="gaussian", sw_batch_size=3)
    with torch.no_grad():
        both = inferer(volume, network)
        torch.testing.assert_close(both[:, :3], network(volume))
        torch.testing.assert_close(both[:, 3:], network.normalize(volume))
        half = NormalizingWindowInferer(roi_size=(8, 8, 8), amp=True)(volume, network)
    assert half.dtype == torch.float32
    assert 0 < (half - both).abs().max() < 0.02


def test_a_wrapper_around_the_network():
    network = NormalizerSegmentor(nn.Conv3d(1, 3, 1)).eval()
    both = NormalizingWindowInferer(roi_size=(4, 4, 4))(torch.ones(1, 1, 4, 4, 4), nn.DataParallel(network))
    assert both.shape == (1, 4, 4, 4, 4)
