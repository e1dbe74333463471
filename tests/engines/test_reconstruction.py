# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Pre-training: which patches are hidden, what the network sees, and what its loss is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segan_monai.engines import ReconstructionTrainer
from segan_monai.engines.reconstruction import difference_of_hidden, hidden_patches
from segan_monai.errors import ConfigError


@pytest.mark.parametrize(("size", "patches"), [((32, 48), 6), ((40, 33), 9), ((17, 16, 32), 4)])
def test_each_image_hides_half_of_its_patches(size, patches):
    mask = hidden_patches(torch.zeros(5, 3, *size), 16, 0.5)
    assert mask.shape == (5, 1, *size)
    corners = mask[(..., *(slice(None, None, 16) for _ in size))]
    assert corners.flatten(1).sum(1).tolist() == [round(patches / 2)] * 5
    whole = corners
    for axis, length in enumerate(size, start=2):
        whole = whole.repeat_interleave(16, dim=axis).narrow(axis, 0, length)
    assert torch.equal(mask, whole)


def test_images_hide_different_patches_and_at_least_one():
    torch.manual_seed(0)
    mask = hidden_patches(torch.zeros(20, 1, 64, 64), 16, 0.01)
    assert mask.flatten(1).sum(1).tolist() == [256] * 20
    assert len({tuple(image.flatten().tolist()) for image in mask}) > 5


def test_the_loss_is_the_mean_of_hidden_pixels_of_each_image():
    image = torch.zeros(2, 2, 2, 2)
    predicted = torch.stack([torch.full((2, 2, 2), 1.0), torch.full((2, 2, 2), 3.0)])
    predicted[0, 1, 0, 0] = 5
    hidden = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    hidden[0, 0, 0] = True  # two pixels in two channels: 1, 1, 5, 1
    hidden[1, 0, 1, 1] = True  # 3, 3
    assert difference_of_hidden(predicted, image, hidden).item() == pytest.approx((2 + 3) / 2)


class Seen(nn.Conv2d):
    """Keeps the images that it was given."""

    def forward(self, x):
        self.images = x.detach().clone()
        return super().forward(x)


def trainer_of(network, images, **settings):
    return ReconstructionTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": images, "case": ["a", "b"]}],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        patch=4,
        **settings,
    )


@pytest.mark.parametrize("parts", [1, 2])
def test_the_network_sees_means_where_patches_are_hidden_and_learns_from_these_only(parts):
    torch.manual_seed(0)
    images = torch.rand(2, 1, 8, 8)
    network = Seen(1, 1, 1)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    trainer = trainer_of(network, images, accumulation_steps=parts)
    trainer.run()
    seen, last = network.images, images[-len(network.images) :]
    hidden = seen != last
    assert hidden.flatten(1).sum(1).tolist() == [32] * len(seen)
    means = last.mean(dim=(2, 3), keepdim=True).expand_as(seen)
    torch.testing.assert_close(seen[hidden], means[hidden])
    # |0 * x + 0 - image| falls by 1 for each unit of the bias, at every hidden pixel
    assert network.bias.item() == pytest.approx(1.0)
    assert trainer.state.output["terms"]["reconstruction"].item() == pytest.approx(trainer.state.output["loss"].item())


@pytest.mark.parametrize("settings", [{"hidden": 0.0}, {"hidden": 1.0}, {"hidden": 0.5, "patch": 0}])
def test_shares_and_sides_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=r"patch is \d+ and hidden is .*; expected a side of 1 or more, and a share"):
        ReconstructionTrainer(**settings)
