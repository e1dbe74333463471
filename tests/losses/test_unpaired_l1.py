# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.losses import UnpairedL1Loss


def layers(*values):
    """One critic with a masked image and one layer per argument, with a channel per value, constant in the plane."""
    return [[torch.zeros(1, 1, 2, 2), *(torch.tensor(v).view(1, -1, 1, 1).expand(2, -1, 3, 3) for v in values)]]


def test_channel_means_are_compared_per_layer():
    loss = UnpairedL1Loss()
    # layer 1: |1 - 3|; layer 2: mean of |2 - 2| and |5 - 1|
    assert loss(layers([1.0], [2.0, 5.0]), layers([3.0], [2.0, 1.0])).item() == pytest.approx((2 + 2) / 2)
    only = UnpairedL1Loss(layers=[1])
    assert only(layers([1.0], [2.0, 5.0]), layers([3.0], [2.0, 1.0])).item() == pytest.approx(2)


def test_the_means_are_over_batch_and_plane():
    predicted = torch.tensor([[[[0.0, 4.0]]], [[[1.0, 3.0]]]])
    true = torch.tensor([[[[10.0, 0.0]]]])
    assert UnpairedL1Loss()([[predicted] * 2], [[true] * 2]).item() == pytest.approx(3)


def test_critics_are_averaged():
    predicted, true = layers([1.0]) + layers([2.0]), layers([0.0]) + layers([-2.0])
    assert UnpairedL1Loss()(predicted, true).item() == pytest.approx((1 + 4) / 2)


def test_the_labelled_side_is_a_running_mean_with_the_gradient_of_the_batch():
    loss = UnpairedL1Loss(momentum=0.9)
    loss(layers([0.0]), layers([1.0]))
    assert loss.labelled_means.tolist() == [1.0]  # the first batch, not a share of it
    predicted = torch.tensor(0.0, requires_grad=True)
    true = torch.tensor(11.0, requires_grad=True)
    found = loss([[torch.zeros(1), predicted.view(1, 1, 1, 1)]], [[torch.zeros(1), true.view(1, 1, 1, 1)]])
    assert loss.labelled_means.tolist() == pytest.approx([2.0])
    assert found.item() == pytest.approx(2.0)
    found.backward()
    assert (predicted.grad.item(), true.grad.item()) == (-1.0, 1.0)


def test_the_segmentor_is_compared_with_the_running_mean_which_stays():
    loss = UnpairedL1Loss()
    loss(layers([0.0]), layers([4.0]))
    assert loss.to_labelled(layers([1.0])).item() == pytest.approx(3)
    assert loss.labelled_means.tolist() == [4.0]


def test_state_is_restored_before_the_first_batch():
    loss, other = UnpairedL1Loss(), UnpairedL1Loss()
    loss(layers([0.0, 1.0]), layers([4.0, 5.0]))
    other.load_state_dict(loss.state_dict())
    assert other.labelled_means.tolist() == [4.0, 5.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, r"unpaired_momentum is 1\.0; expected 0 or more, and less than 1"),
        ({"layers": [0, 1]}, r"unpaired_layers is \[0, 1\]; expected layers from 1, or null for all"),
        ({"layers": []}, r"unpaired_layers is \[\]; expected layers from 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        UnpairedL1Loss(**settings)


def test_a_layer_that_the_critic_lacks():
    with pytest.raises(
        ConfigError, match=r"unpaired_layers is \[3\]; expected layers from 1 to 1, those of the critic"
    ):
        UnpairedL1Loss(layers=[3])(layers([1.0]), layers([1.0]))
