# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What inference averages can be compared at almost no cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segan_monai.inferers import FiniteInferer, VolumeSliceInferer, VolumeWindowInferer
from segan_monai.inferers.agreement import Agreement
from segan_monai.networks import NetworkEnsemble


def test_dice_is_that_of_all_pairs_and_batches_together():
    agreement = Agreement()
    for first, second, third in ([[1, 1], [1, -1], [1, 1]], [[-1, -1], [1, -1], [-1, -1]]):
        masks: list[torch.Tensor] = []
        for values in (first, second, third):
            agreement.compare("axes", masks, torch.tensor([[values]], dtype=torch.float32))
    # pairs of the first batch: 1 of 3, 2 of 4, 1 of 3; of the second: 0 of 1, 0 of 0, 0 of 1
    assert agreement.dice()["axes"] == pytest.approx([2 * 4 / 12])
    agreement.clear()
    assert agreement.dice() == {}


def test_empty_outputs_agree_and_softmax_takes_the_highest():
    agreement = Agreement(softmax=True)
    masks: list[torch.Tensor] = []
    agreement.compare("members", masks, torch.tensor([[[5.0, 4.0], [1.0, 3.0], [0.0, 0.0]]]))
    agreement.compare("members", masks, torch.tensor([[[5.0, 1.0], [1.0, 3.0], [0.0, 0.0]]]))
    assert agreement.dice()["members"] == pytest.approx([2 * 1 / 3, 0.0, 1.0])


INFERERS = {
    "slices": (lambda: VolumeSliceInferer(axis=[2, 0], mirror_axes=[1]), nn.Conv2d(1, 2, 3, padding=1), 5, True),
    "windows": (lambda: VolumeWindowInferer((8, 8, 8), mirror_axes=[0]), nn.Conv3d(1, 2, 3, padding=1), 5, False),
    "photographs": (lambda: FiniteInferer(mirror_axes=[0]), nn.Conv2d(1, 2, 3, padding=1), 4, False),
}


@pytest.mark.parametrize("name", INFERERS)
def test_inferers_compare_what_they_average_and_give_the_same_output(name):
    make, network, dimensions, has_axes = INFERERS[name]
    torch.manual_seed(0)
    ensemble = NetworkEnsemble(network, 2)
    for parameter in ensemble.parameters():
        nn.init.normal_(parameter, std=2.0)
    image = torch.rand(1, 1, 9, 10, 7)[(..., *[0] * (5 - dimensions))]
    plain, inferer = make(), make()
    inferer.agreement = Agreement()
    with torch.no_grad():
        members = [plain(image, member) for member in ensemble.members]
        assert torch.equal(inferer(image, ensemble), plain(image, ensemble))
    found = inferer.agreement.dice()
    assert set(found) == {"members", "mirrors"} | ({"axes"} if has_axes else set())
    first, second = (member > 0 for member in members)
    for channel, dice in enumerate(found["members"]):
        both = (first & second)[:, channel].sum()
        assert dice == pytest.approx(float(2 * both / (first[:, channel].sum() + second[:, channel].sum())), abs=1e-6)
    assert all(0 < dice < 1 for dice in found["mirrors"])
