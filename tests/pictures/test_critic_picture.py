# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segan_monai.engines.running_statistics import RunningStatistics
from segan_monai.losses import MultiScaleL1Loss
from segan_monai.networks import SegANCritics, SegANSegmentor
from segan_monai.pictures.critic_picture import critic_figure, critic_maps, critic_maps_of_slice
from segan_monai.pictures.live_slice import LiveSlice


class Same(nn.Module):
    """S(x) has one logit everywhere."""

    def __init__(self, logit: float, classes: int = 1) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))
        self.classes = classes

    def forward(self, x):
        return self.logit.expand(len(x), self.classes, *x.shape[2:])


class Pooled(nn.Module):
    """Features of layer 1 are twice the mean of 2 x 2 pixels of the masked image."""

    def forward(self, image, label_map):
        masked = [image * mask for mask in label_map.split(1, dim=1)]
        return [[x, 2 * F.avg_pool2d(x, 2)] for x in masked]


def test_the_difference_of_each_layer_by_hand():
    image = torch.tensor([[[8.0, 0, 0, 0], [0, 0, 0, 4]], [[2, 0, 0, 0], [0, 0, 0, 0]]])
    label = torch.zeros(2, 2, 4)
    label[0, 0, 0] = 1
    (first, second) = critic_maps(Same(0.0, classes=2), Pooled(), image, label)
    # |x p - x y| with p = 1/2 everywhere, mean of both channels; of the first class y is 1 in the first pixel
    expected = torch.tensor([[2.5, 0, 0, 0], [0, 0, 0, 1.0]])
    torch.testing.assert_close(first[0], expected)
    torch.testing.assert_close(second[0], expected)  # |1/2 - 1| and |1/2 - 0| are alike
    # 2 * mean of four pixels: 2 * 2.5 / 4 and 2 * 1 / 4, then bilinear between the two centres
    torch.testing.assert_close(first[1], torch.tensor([[1.25, 1.0625, 0.6875, 0.5]] * 2))


def test_a_perfect_prediction_is_dark_and_padding_is_cut_off():
    image, label = torch.rand(1, 5, 6), torch.ones(1, 5, 6)
    ((layer_0, layer_1),) = critic_maps(Same(50.0), Pooled(), image, label, min_size=(8, 8))
    assert layer_0.shape == layer_1.shape == (5, 6)
    assert layer_0.max() < 1e-6
    # outside of the slice there is nothing to differ in; a border of it inside the window would be seen in layer 1
    ((layer_0, layer_1),) = critic_maps(Same(0.0), Pooled(), torch.ones(1, 4, 4), torch.zeros(1, 4, 4), (8, 8))
    torch.testing.assert_close(layer_0, torch.full((4, 4), 0.5))
    assert layer_1[1:3, 1:3].min() > 0.99


def test_the_mean_of_a_map_is_the_layers_term_of_the_loss():
    torch.manual_seed(0)
    network, critic = SegANSegmentor(2, 2, base_channels=4).eval(), SegANCritics(2, 2, base_channels=4).eval()
    image, label = torch.rand(2, 32, 32), (torch.rand(2, 32, 32) > 0.5).float()
    maps = critic_maps(network, critic, image, label)
    assert [len(of_critic) for of_critic in maps] == [4, 4]
    with torch.no_grad():
        features = critic(image[None], network(image[None]).sigmoid()), critic(image[None], label[None])
        term = MultiScaleL1Loss(layers=[0])(*features)
    assert torch.stack([of_critic[0].mean() for of_critic in maps]).mean() == pytest.approx(float(term), rel=1e-5)


@pytest.mark.parametrize("joint", [False, True])
def test_nothing_of_the_networks_changes(joint):
    torch.manual_seed(0)
    network, critic = SegANSegmentor(1, 2, base_channels=4), SegANCritics(1, 2, base_channels=4, joint=joint)
    critic.eval()
    state = {key: value.clone() for net in (network, critic) for key, value in net.state_dict().items()}
    assert RunningStatistics({"network": network}).tensors(), "there are norm layers to change"
    random = torch.get_rng_state()
    maps = critic_maps(network, critic, torch.rand(1, 37, 35, generator=torch.Generator()), torch.ones(2, 37, 35))
    assert len(maps) == (1 if joint else 2)
    assert {plane.shape for of_critic in maps for plane in of_critic} == {(37, 35)}
    for net in (network, critic):
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert (network.training, critic.training) == (True, False)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_3d_critic_is_shown_on_the_patch_around_the_reference(axis):
    torch.manual_seed(0)
    network = SegANSegmentor(1, 2, base_channels=2, num_levels=2, spatial_dims=3).eval()
    critic = SegANCritics(1, 2, base_channels=2, num_levels=2, spatial_dims=3).eval()
    image, label = torch.rand(1, 12, 13, 11), torch.zeros(2, 12, 13, 11)
    label[0, 9:12, 9:12, 2:4] = 1
    batch = {"case": "x", "image": image, "label": label}
    cut = LiveSlice.of_case(batch, {"pred": label}, 2, axis)
    maps = critic_maps_of_slice(network, critic, cut, (8, 8, 16))
    box = (slice(None), slice(4, 12), slice(5, 13))
    whole = torch.zeros(12, 13, 11)
    whole[box[1:]] = critic_maps(network, critic, image[box], label[box], (8, 8, 16))[1][2]
    torch.testing.assert_close(maps[1][2], whole.select(axis, cut.index))
    assert maps[1][2].shape == cut.label.shape[1:]
    assert maps[1][2].count_nonzero() > 20


@pytest.mark.parametrize(("joint", "rows"), [(False, ["left", "right", "none"]), (True, ["all classes"])])
def test_a_row_a_critic_and_a_column_a_layer(joint, rows):
    label = torch.zeros(3, 24, 20, dtype=torch.bool)
    label[0, 4:9, 3:9] = True
    cut = LiveSlice("x", 0.5, image := torch.rand(2, 24, 20), image, label, label.roll(2, dims=1), axis=2)
    maps = [[torch.rand(24, 20) * (layer + 1) for layer in range(4)] for _ in rows]
    figure = critic_figure(cut, maps, ["left", "right", "none"], ["red", "green"])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[::5] == rows
    assert [title[:7] for title in titles[1:5]] == [f"layer {layer}" for layer in range(4)]
    mean = maps[0][3].mean()
    assert titles[4] == f"layer 3: mean {mean:.2g}, scale {max(float(m[3].max()) for m in maps):.2g}"
