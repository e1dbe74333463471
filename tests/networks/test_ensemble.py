# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The mean of the probabilities of several networks, and the RoIs of several L-SNets."""

from __future__ import annotations

import weakref
from typing import ClassVar

import pytest
import torch
from torch import nn

from segan_monai.errors import ConfigError
from segan_monai.finite import NonFiniteOutputError
from segan_monai.networks import LSNet, NetworkEnsemble, RoIs, network_of_weights
from segan_monai.networks.ensemble import combine_members


class Constant(nn.Module):
    """Returns the same logits everywhere, and counts which of its outputs are still alive."""

    alive: ClassVar[weakref.WeakSet] = weakref.WeakSet()
    most = 0

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits)[None, :, None, None])

    def forward(self, x):
        output = self.logits.detach().expand(len(x), -1, *x.shape[2:]).clone()
        Constant.alive.add(output)
        Constant.most = max(Constant.most, len(Constant.alive))
        return output


def ensemble_of(*members):
    ensemble = NetworkEnsemble(members[0], len(members))
    ensemble.members = nn.ModuleList(members)
    return ensemble


def test_the_mean_is_of_probabilities_and_not_of_logits():
    result = ensemble_of(Constant(8.0, -1.0), Constant(-1.0, -1.0))(torch.zeros(1, 1, 2, 2)).sigmoid()
    # (sigmoid(8) + sigmoid(-1)) / 2; the mean logit would give sigmoid(3.5) = .971
    assert result[0, :, 0, 0].tolist() == pytest.approx([(0.99966465 + 0.26894142) / 2, 0.26894142], abs=1e-6)


def test_networks_with_softmax_are_averaged_over_classes():
    first, second = Constant(0.0, 2.0), Constant(1.0, 0.0)
    first.has_softmax = True
    result = ensemble_of(first, second)(torch.zeros(1, 1, 1, 1)).softmax(1)
    # e^2 / (1 + e^2) = .8807970 and 1 / (1 + e) = .2689414
    assert result.flatten().tolist() == pytest.approx([1 - 0.5748692, 0.5748692], abs=1e-6)


def test_the_last_channels_may_be_an_image():
    members = ensemble_of(Constant(0.0, 500.0), Constant(0.0, -100.0))
    result = combine_members(lambda member: member(torch.zeros(1, 1, 1, 1)), members, plain_channels=1)
    assert result.flatten().tolist() == pytest.approx([0.0, 200.0])


def test_certain_members_have_finite_logits():
    result = ensemble_of(Constant(200.0, -200.0), Constant(200.0, -200.0))(torch.zeros(1, 1, 1, 1))
    assert result.isfinite().all()
    assert result.sigmoid().flatten().tolist() == pytest.approx([1, 0], abs=2e-7)


def test_one_output_is_in_memory_whatever_the_number_of_members():
    for count in (2, 6):
        Constant.most = 0
        ensemble_of(*(Constant(float(number)) for number in range(count)))(torch.zeros(1, 1, 4, 4))
        assert Constant.most == 1


def test_members_have_their_own_weights(tmp_path):
    files = []
    for number in range(2):
        torch.save(nn.Conv2d(1, 1, 1).state_dict(), tmp_path / f"fold{number}.pt")
        files.append(tmp_path / f"fold{number}.pt")
    network = network_of_weights(nn.Conv2d(1, 1, 1), files)
    for member, file in zip(network.members, files, strict=True):
        assert torch.equal(member.weight, torch.load(file, weights_only=True)["weight"])
    assert not torch.equal(network.members[0].weight, network.members[1].weight)
    single = nn.Conv2d(1, 1, 1)
    assert network_of_weights(single, files[:1]) is single
    assert torch.equal(single.weight, network.members[0].weight)


def test_weights_of_another_architecture_are_named(tmp_path):
    for name, network in (("a", nn.Conv2d(1, 1, 1)), ("b", nn.Conv2d(1, 2, 1))):
        torch.save(network.state_dict(), tmp_path / f"{name}.pt")
    files = [tmp_path / "a.pt", tmp_path / "b.pt"]
    with pytest.raises(ConfigError, match=r"b\.pt: weights of another architecture"):
        network_of_weights(nn.Conv2d(1, 1, 1), files)


def test_every_member_receives_the_state_of_a_single_network():
    single = nn.Conv2d(1, 1, 1)
    ensemble = NetworkEnsemble(nn.Conv2d(1, 1, 1), 2)
    ensemble.load_state_dict(single.state_dict())
    assert all(torch.equal(member.weight, single.weight) for member in ensemble.members)
    other = NetworkEnsemble(nn.Conv2d(1, 1, 1), 2)
    other.load_state_dict(ensemble.state_dict())
    assert torch.equal(other.members[1].weight, single.weight)


class Finds(nn.Module):
    """Finds a box of 8x8 pixels around each keypoint, in every image."""

    def __init__(self, *keypoints):
        super().__init__()
        self.keypoints = torch.tensor(keypoints, dtype=torch.float32).reshape(-1, 2)

    def forward(self, x):
        return x

    def find_rois(self, found):
        images, count = len(found), len(self.keypoints)
        return RoIs(
            torch.arange(images).repeat_interleave(count),
            torch.zeros(images * count, dtype=torch.long),
            self.keypoints.repeat(images, 1),
            torch.full((images * count, 4), 4.0),
            torch.ones(images * count),
        )


def test_a_roi_of_one_l_snet_is_segmented_by_all():
    """At (8, 8), both find it; at (24, 8), the second alone; elsewhere none does."""
    first, second = (
        LSNet(Finds((8, 8)), Constant(3.0), 1, margin=0),
        LSNet(Finds((8, 8), (24, 8)), Constant(-1.0), 1, margin=0),
    )
    found = ensemble_of(first, second).eval()(torch.zeros(2, 1, 16, 32)).sigmoid()
    mean = (torch.tensor([3.0, -1.0]).sigmoid().mean()).item()
    assert mean == pytest.approx(0.6107, abs=1e-4)
    assert found[:, 0, 8, 8].tolist() == pytest.approx([mean, mean], abs=1e-4)
    assert found[:, 0, 8, 24].tolist() == pytest.approx([mean, mean], abs=1e-4), "not half of it"
    assert found[:, 0, 8, 16].max() < 1e-5
    assert first.segmentor is not second.segmentor, "members keep their own"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_segmentor_whose_output_is_not_finite_is_found(value):
    members = [LSNet(Finds((8, 8)), Constant(logit), 1, margin=0) for logit in (3.0, value)]
    with pytest.raises(NonFiniteOutputError, match="segmentation network"):
        ensemble_of(*members).eval()(torch.zeros(1, 1, 16, 32))


def test_l_snets_with_equal_weights_are_one_network():
    one = LSNet(Finds((8, 8)), nn.Conv2d(1, 1, 3, padding=1), 1, margin=2).eval()
    image = torch.rand(1, 1, 16, 32)
    torch.testing.assert_close(NetworkEnsemble(one, 3).eval()(image), one(image), atol=1e-4, rtol=1e-4)
