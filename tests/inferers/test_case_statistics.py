# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from segan_monai.errors import ConfigError
from segan_monai.inferers import RoISliceInferer, VolumeSliceInferer, volume_inferer
from segan_monai.inferers.case_statistics import CASE_SLICES, evenly_spaced, with_case_statistics
from segan_monai.networks.segan import SegANSegmentor
from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS


def norm(mean=10.0, variance=4.0):
    """A network that is one batch norm without weights, trained on images of this mean and variance."""
    layer = nn.BatchNorm2d(1, eps=1e-12, affine=False).eval()
    layer.running_mean.fill_(mean)
    layer.running_var.fill_(variance)
    return layer


@pytest.mark.parametrize(
    ("share", "mean", "variance"),
    [(0.0, 10.0, 4.0), (1.0, 2.0, 8 / 7), (0.25, 8.0, 0.75 * 4 + 0.25 * 8 / 7)],
    ids=["training", "case", "mixture"],
)
def test_statistics_are_those_of_the_slices_with_content(share, mean, variance):
    volume = torch.zeros(1, 1, 2, 2, 4)
    volume[..., 1], volume[..., 2] = 1.0, 3.0  # 8 voxels: mean 2, sum of squares 8
    output = VolumeSliceInferer(margin=0, batch_size=1, case_statistics=share)(volume, norm())
    for index, value in ((1, 1.0), (2, 3.0)):
        expected = torch.full((1, 1, 2, 2), (value - mean) / variance**0.5)
        torch.testing.assert_close(output[..., index], expected)
    assert (output[..., [0, 3]] == -20).all()


def test_gain_and_offset_of_an_image_do_not_matter():
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4, eps=1e-12), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3)
    network = nn.Sequential(*layers).eval()
    volume = torch.rand(1, 2, 6, 7, 5) + 1
    with torch.inference_mode():
        results = [
            [VolumeSliceInferer(case_statistics=share)(x, network) for x in (volume, 3 * volume + 2)]
            for share in (0.0, 1.0)
        ]
    torch.testing.assert_close(*results[1], atol=1e-4, rtol=1e-4)
    assert (results[0][0] - results[0][1]).abs().mean() > 0.1


@pytest.mark.parametrize("neighbours", [0, 1])
def test_each_axis_has_its_own_statistics_and_the_network_stays(neighbours):
    torch.manual_seed(0)
    network = SegANSegmentor(1 + 2 * neighbours, 2, base_channels=4, num_levels=2).train()
    before = copy.deepcopy(network.state_dict())
    volume = torch.rand(1, 1, 9, 12, 7) * torch.linspace(0.1, 2, 12)[:, None]
    settings = {"neighbours": neighbours, "case_statistics": 1.0}
    both = VolumeSliceInferer([0, 2], batch_size=2, **settings)(volume, network)
    one, other = (VolumeSliceInferer(axis, batch_size=16, **settings)(volume, network) for axis in (0, 2))
    torch.testing.assert_close(both, (one + other) / 2, atol=1e-5, rtol=1e-4)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_case_with_one_slice_keeps_the_statistics_of_the_training():
    volume = torch.zeros(1, 1, 2, 2, 3)
    volume[..., 1] = 5.0
    for case in (volume, torch.zeros_like(volume)):
        plain, own = (VolumeSliceInferer(case_statistics=share)(case, norm()) for share in (0.0, 1.0))
        assert torch.equal(plain, own)


class Counting(nn.BatchNorm2d):
    """Batch norm that lists the sizes of its batches, and has memory for few slices."""

    def __init__(self, most):
        super().__init__(1, affine=False)
        self.most, self.seen = most, []

    def forward(self, batch):
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.seen.append(len(batch))
        return super().forward(batch)

    def __deepcopy__(self, memo):
        copied = Counting(self.most)
        copied.seen = self.seen
        return copied


@pytest.mark.parametrize(("most", "seen"), [(100, [32, 16, 16, 8]), (16, [16, 8, 8, 8, 8, 8])])
def test_a_pass_for_the_statistics_needs_no_more_memory_than_there_is(most, seen):
    network = Counting(most).eval()
    VolumeSliceInferer(batch_size=16, case_statistics=1.0)(torch.rand(1, 1, 2, 2, 40), network)
    assert network.seen == seen


def test_few_slices_stand_for_a_long_case():
    index = torch.arange(100, 200)
    found = evenly_spaced(index)
    assert (len(found), found[0], found[-1]) == (CASE_SLICES, 100, 199)
    assert set(found.diff().tolist()) == {3, 4}
    assert torch.equal(evenly_spaced(index[:5]), index[:5])


@pytest.mark.parametrize("bundle", [HIPPOCAMPUS, BRATS])
@pytest.mark.parametrize("config", ["inference", "evaluate"])
def test_the_key_reaches_the_inferer_and_the_settings_of_quality(bundle, config):
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs" / f"{config}.json")
    assert parser["case_statistics"] == 0
    parser["case_statistics"] = 0.5
    assert parser.get_parsed_content("inferer").case_statistics == 0.5
    assert parser["quality_settings"]["case_statistics"] == "@case_statistics"


def test_what_cannot_be_done_is_said():
    with pytest.raises(ConfigError, match=r"case_statistics is 1.5; expected a number from 0 .* to 1 \(of the case\)"):
        VolumeSliceInferer(case_statistics=1.5)
    with pytest.raises(ConfigError, match=r"needs whole planes. Set window_overlap to null, or it to 0"):
        VolumeSliceInferer(case_statistics=1, window_overlap=0.5)
    with pytest.raises(ConfigError, match=r"with spatial_dims 3; it works with slices only. Set it to 0"):
        volume_inferer(3, patch_size=(8, 8, 8), case_statistics=1)
    inferer = volume_inferer(2, case_statistics=1)
    with pytest.raises(ValueError, match="2 volumes in a batch; case_statistics expects 1"):
        inferer(torch.rand(2, 1, 4, 4, 4), norm())
    volume = torch.rand(1, 1, 4, 4, 4)
    with pytest.raises(ConfigError, match="needs batch norm layers, and the network has none"):
        inferer(volume, nn.Conv2d(1, 1, 1))
    with pytest.raises(ConfigError, match="needs a PyTorch module; found function"):
        inferer(volume, lambda x: x)
    compiled = norm()
    compiled.compile(backend="eager")
    with pytest.raises(ConfigError, match=r"and this one is compiled\. Set case_statistics to 0, or do not compile"):
        inferer(volume, compiled)
    with pytest.raises(ConfigError, match="case_statistics is 1; expected 0: RoIs are segmented by a network of their"):
        RoISliceInferer(case_statistics=1)


def test_layers_without_statistics_of_a_training_are_no_batch_norm_here():
    network = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False))
    with pytest.raises(ConfigError, match="the network has none"):
        with_case_statistics(network, torch.rand(2, 1, 4, 4), 1.0)
