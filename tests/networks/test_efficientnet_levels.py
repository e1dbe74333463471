# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 as encoder: the ImageNet weights of its package, sizes, exports."""

from __future__ import annotations

import pytest
import torch

from segan_monai import imagenet_weights
from segan_monai.errors import ConfigError
from segan_monai.networks import EfficientNetEncoderLevels, LocalizationNet, LSNet, ResNetSegmentor

LITE = "efficientnet_lite0"


def test_features_of_the_imagenet_weights_are_those_of_another_implementation():
    image = torch.sin(40 * torch.linspace(-1, 1, 3 * 64 * 96).reshape(1, 3, 64, 96))
    # shape, mean, standard deviation and one value, as efficientnet_lite_pytorch 0.1.0 computes them
    expected = [
        ((1, 16, 32, 48), 0.10521, 9.76323, 7.13822),
        ((1, 24, 16, 24), 0.20999, 14.98558, 6.58404),
        ((1, 40, 8, 12), 0.50099, 11.58719, -26.97195),
        ((1, 112, 4, 6), 0.08601, 5.91813, -2.53802),
        ((1, 320, 2, 3), 0.05280, 3.60214, -1.46535),
    ]
    with torch.no_grad():
        first, *levels = EfficientNetEncoderLevels(3, imagenet_weights()).eval()(image)
    assert first is image
    for level, (shape, mean, deviation, value) in zip(levels, expected, strict=True):
        assert level.shape == shape
        found = [float(level.mean()), float(level.std()), float(level[0, 3, 1, 2])]
        assert found == pytest.approx([mean, deviation, value], rel=1e-3, abs=1e-3)


def test_a_grey_image_has_the_features_of_three_equal_colours():
    grey, coloured = (EfficientNetEncoderLevels(channels, imagenet_weights()).eval() for channels in (1, 3))
    image = torch.rand(1, 1, 32, 64)
    torch.testing.assert_close(grey(image)[1], coloured(image.expand(-1, 3, -1, -1))[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("structure", ["unet", "attention_unet", "fcn"])
def test_any_size_and_number_of_channels(structure):
    network = ResNetSegmentor(2, 3, base_channels=8, structure=structure, encoder=LITE)
    logits = network(torch.randn(2, 2, 50, 70))
    assert logits.shape == (2, 3, 50, 70)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_exported_l_snet_gives_the_same():
    localizer = LocalizationNet(1, 1, base_channels=8, encoder=LITE, prior=0.5, threshold=0.4)
    network = LSNet(localizer, ResNetSegmentor(1, 1, base_channels=8, encoder=LITE), 1, margin=2).eval()
    image = torch.rand(1, 1, 64, 64)
    expected = network(image)
    assert (expected > -13).any(), "a RoI was found"
    torch.testing.assert_close(torch.jit.script(network)(image), expected)
    torch.testing.assert_close(torch.export.export(network, (image,)).module()(image), expected)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet18.pth")
    with pytest.raises(
        ConfigError, match=r"resnet18\.pth: weights of another network than EfficientNet-Lite0: .* first: _conv_stem"
    ):
        EfficientNetEncoderLevels(1, tmp_path / "resnet18.pth")
    with pytest.raises(ConfigError, match=r"encoder is 'vgg'; expected 'resnet' or 'efficientnet_lite0'"):
        ResNetSegmentor(1, 1, encoder="vgg")
