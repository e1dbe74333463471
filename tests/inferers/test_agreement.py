# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What inference averages can be compared at almost no cost."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import nn

from segan_monai.finite import NonFiniteOutputError
from segan_monai.inferers import FiniteInferer, VolumeSliceInferer, VolumeWindowInferer
from segan_monai.inferers.agreement import Agreement
from segan_monai.networks import NetworkEnsemble


def test_dice_is_that_of_all_pairs_and_batches_together():
    agreement = Agreement()
    with agreement.attempt():
        for first, second, third in ([[1, 1], [1, -1], [1, 1]], [[-1, -1], [1, -1], [-1, -1]]):
            masks: list[torch.Tensor] = []
            for values in (first, second, third):
                agreement.compare("axes", masks, torch.tensor([[values]], dtype=torch.float32))
    # pairs of the first batch: 1 of 3, 2 of 4, 1 of 3; of the second: 0 of 1, 0 of 0, 0 of 1
    assert agreement.dice()["axes"] == pytest.approx([2 * 4 / 12])
    with agreement.attempt():
        assert agreement.dice() == {}, "the next case"


def test_empty_outputs_agree():
    agreement = Agreement()
    masks: list[torch.Tensor] = []
    agreement.compare("axes", masks, torch.tensor([[[5.0, 4.0], [-1.0, 3.0], [-1.0, 0.0]]]))
    agreement.compare("axes", masks, torch.tensor([[[5.0, -1.0], [1.0, -3.0], [0.0, 0.0]]]))
    assert agreement.dice()["axes"] == pytest.approx([2 * 1 / 3, 0.0, 1.0])


def test_a_failed_attempt_leaves_no_counts():
    agreement, masks = Agreement(), []
    one = torch.ones(1, 1, 2)
    with agreement.attempt():
        agreement.compare("axes", masks, one)
        agreement.compare("axes", masks, one)
        with suppress(RuntimeError), agreement.attempt():
            agreement.compare("axes", masks, -one)
            raise RuntimeError
        assert agreement.dice() == {"axes": [1.0]}


INFERERS = {
    "slices": (
        lambda **settings: VolumeSliceInferer(**{"axis": [2, 0], "mirror_axes": [1], "batch_size": 4, **settings}),
        nn.Conv2d(1, 2, 3, padding=1),
        5,
        {"axes", "mirrors"},
    ),
    "windows": (
        lambda **settings: VolumeWindowInferer((8, 8, 8), **{"mirror_axes": [0], "sw_batch_size": 2, **settings}),
        nn.Conv3d(1, 2, 3, padding=1),
        5,
        {"mirrors"},
    ),
    "photographs": (
        lambda **settings: FiniteInferer(**{"mirror_axes": [0], **settings}),
        nn.Conv2d(1, 2, 3, padding=1),
        4,
        {"mirrors"},
    ),
}


def image_and_network(name):
    torch.manual_seed(0)
    _, network, dimensions, _ = INFERERS[name]
    nn.init.normal_(network.weight, std=2.0)
    nn.init.zeros_(network.bias)
    return torch.randn(1, 1, 9, 10, 7)[(..., *[0] * (5 - dimensions))], network


@pytest.mark.parametrize("name", INFERERS)
def test_inferers_compare_what_they_average_and_give_the_same_output(name):
    make, *_, kinds = INFERERS[name]
    image, network = image_and_network(name)
    ensemble = NetworkEnsemble(network, 2)
    plain, inferer = make(), make()
    inferer.agreement = Agreement()
    with torch.no_grad():
        for networks in (network, ensemble):
            assert torch.equal(inferer(image, networks), plain(image, networks))
            found = inferer.agreement.dice()
            assert set(found) == kinds
            assert all(0 < dice < 1 for of_kind in found.values() for dice in of_kind)


def test_the_agreement_of_axes_is_that_of_their_masks():
    image, network = image_and_network("slices")
    inferer = VolumeSliceInferer(axis=[2, 0])
    inferer.agreement = Agreement()
    with torch.no_grad():
        inferer(image, network)
        first, second = (VolumeSliceInferer(axis=axis)(image, network) > 0 for axis in (2, 0))
    for channel, dice in enumerate(inferer.agreement.dice()["axes"]):
        both = (first & second)[:, channel].sum()
        assert dice == pytest.approx(float(2 * both / (first[:, channel].sum() + second[:, channel].sum())), abs=1e-6)


class FailsOnce(nn.Module):
    """Raises an error, or returns NaN, in the third call."""

    def __init__(self, network, error):
        super().__init__()
        self.network, self.error, self.calls = network, error, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 3 and self.error:
            raise self.error
        return self.network(x) * (float("nan") if self.calls == 3 else 1)


@pytest.mark.parametrize("name", ["slices", "windows"])
def test_batches_before_a_retry_are_not_counted_twice(name):
    make = INFERERS[name][0]
    image, network = image_and_network(name)
    smaller = {"slices": {"batch_size": 2}, "windows": {"sw_batch_size": 1}}[name]
    inferer, alone = make(), make(**smaller)
    inferer.agreement, alone.agreement = Agreement(), Agreement()
    with torch.no_grad():
        inferer(image, FailsOnce(network, torch.OutOfMemoryError("CUDA out of memory.")))
        alone(image, network)
    for kind, counts in alone.agreement.counts.items():
        assert torch.equal(inferer.agreement.counts[kind], counts)


@pytest.mark.parametrize("name", INFERERS)
def test_a_failed_case_leaves_nothing_to_the_next(name):
    make = INFERERS[name][0]
    image, network = image_and_network(name)
    mirror_axes = [0, 1]  # four views
    inferer, alone = make(mirror_axes=mirror_axes), make(mirror_axes=mirror_axes)
    inferer.agreement, alone.agreement = Agreement(), Agreement()
    with torch.no_grad():
        with pytest.raises(NonFiniteOutputError):
            inferer(image, FailsOnce(network, None))
        assert inferer.agreement.dice() == {}
        inferer(image, network)
        alone(image, network)
    assert inferer.agreement.dice() == alone.agreement.dice()
