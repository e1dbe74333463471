# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""ResNets with decoders: sizes, parameters, weights from files."""

from __future__ import annotations

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.networks import LocalizationNet, ResNetEncoderLevels, ResNetPyramid, ResNetSegmentor


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("structure", ["unet", "attention_unet", "fcn"])
@pytest.mark.parametrize("size", [(32, 32), (50, 70), (33, 161)])
def test_any_size_and_number_of_channels(structure, size):
    network = ResNetSegmentor(2, 3, depth=18, base_channels=4, structure=structure)
    logits = network(torch.randn(2, 2, *size))
    assert logits.shape == (2, 3, *size)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    features = ResNetPyramid(2, 18, 4, structure, stride=4)(torch.randn(2, 2, *size))
    assert features.shape[2:] == (-(-size[0] // 4), -(-size[1] // 4))


def test_levels_are_halved_one_after_the_other():
    levels = ResNetEncoderLevels(1, 34, base_channels=4)(torch.zeros(1, 1, 64, 96))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (1, 64, 96), (4, 32, 48), (4, 16, 24), (8, 8, 12), (16, 4, 6), (32, 2, 3)
    ]  # fmt: skip


def test_the_published_numbers_of_parameters():
    with torch.device("meta"):
        assert count(ResNetSegmentor(3, 1, depth=18)) == pytest.approx(14.33e6, rel=1e-3)
        assert count(LocalizationNet(3, 1, depth=18)) == pytest.approx(14.50e6, rel=1e-2)


def test_gates_weight_the_four_skip_connections():
    network, plain = (ResNetSegmentor(1, 1, 18, 4, structure).eval() for structure in ("attention_unet", "unet"))
    gates = [block.gate for block in network.pyramid.decoder.blocks if hasattr(block, "gate")]
    # of the levels with 16, 8, 4 and 4 channels, a gate has half inside
    assert [gate.W_x[0].out_channels for gate in gates] == [8, 4, 2, 2]
    assert count(network) > count(plain)
    image, seen = torch.randn(1, 1, 64, 64), []
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))
    for gate in gates:
        gate.register_forward_hook(lambda module, inputs, output: seen.append(output / inputs[1]))
    network(image)
    assert len(seen) == 4
    for weight in seen:
        assert 0 <= weight.nan_to_num(0.5).min() <= weight.nan_to_num(0.5).max() <= 1 + 1e-6


def test_an_output_depends_on_its_own_place():
    for structure in ("unet", "attention_unet", "fcn"):
        network = ResNetSegmentor(1, 1, depth=18, base_channels=4, structure=structure).eval()
        image = torch.zeros(1, 1, 64, 64)
        marked = image.clone()
        marked[0, 0, 40:44, 8:12] = 5
        change = (network(marked) - network(image)).abs()[0, 0]
        row, column = divmod(int(change.argmax()), 64)
        assert abs(row - 42) < 16
        assert abs(column - 10) < 16


def test_weights_of_a_file_with_torchvisions_names(tmp_path):
    source = ResNetEncoderLevels(3, 18, base_channels=4)
    content = {**source.state_dict(), "fc.weight": torch.zeros(1000, 32), "fc.bias": torch.zeros(1000)}
    names = {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight", "layer4.1.conv2.weight"}
    assert names <= content.keys(), "as torchvision names them"
    torch.save(content, tmp_path / "resnet18.pth")
    loaded = ResNetSegmentor(1, 1, 18, 4, weights=tmp_path / "resnet18.pth").pyramid.encoder
    grey = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(loaded.conv1(grey), source.conv1(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loaded.layer3[1].conv1.weight, source.layer3[1].conv1.weight)
    with pytest.raises(ConfigError, match="weights of another ResNet"):
        ResNetEncoderLevels(3, 34, 4, weights=tmp_path / "resnet18.pth")


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="ResNet depth is 50; expected one of 18, 34"):
        ResNetEncoderLevels(1, 50)
    with pytest.raises(ConfigError, match="structure is 'vnet'"):
        ResNetPyramid(1, structure="vnet")
