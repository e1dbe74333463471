# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.networks.nets import BasicUNet, UNet
from torch import nn

from segan_monai.errors import ConfigError
from segan_monai.networks import NormalizerSegmentor, kaiming_initialize


def unet(out_channels):
    return UNet(3, 1, out_channels, channels=(4, 8, 16), strides=(2, 2), norm="batch")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return NormalizerSegmentor(unet(4), unet(1))


@pytest.fixture
def image():
    torch.manual_seed(1)
    image = torch.rand(2, 1, 16, 16, 16)
    image[..., :5] = 0
    return image


def test_training_gives_both_of_one_pass_and_evaluation_the_logits_alone(network, image):
    calls = []
    network.normalizer.register_forward_hook(lambda *args: calls.append(1))
    logits, normalized = network(image)
    assert len(calls) == 1
    assert logits.shape == (2, 4, 16, 16, 16)
    assert normalized.shape == image.shape
    network.eval()
    assert torch.equal(network(image), network.segmentor(network.normalize(image)))
    assert torch.equal(network.segment_and_normalize(image), torch.cat([network(image), network.normalize(image)], 1))


def test_background_stays_zero(network, image):
    network.eval()
    normalized = network.normalize(image)
    assert (normalized[..., :5] == 0).all()
    assert (normalized[..., 5:] != 0).float().mean() > 0.99
    network.keep_background = False
    assert (network.normalize(image)[..., :5] != 0).float().mean() > 0.99


def test_gain_and_offset_of_each_voxel(image):
    network = NormalizerSegmentor(unet(4), unet(2), gain_and_offset=True).eval()
    coarse = network.normalizer(image.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).mean((-3, -2, -1)))
    gain, offset = nn.Upsample(scale_factor=2, mode="trilinear")(coarse).chunk(2, dim=1)
    expected = (image + gain * image + offset) * (image != 0)
    torch.testing.assert_close(network.normalize(image), expected)
    for parameter in network.normalizer.model[-1].parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(network.normalize(image), image), "nothing to add: the image itself"


@pytest.mark.parametrize("settings", [{"gain_and_offset": True}, {"residual": True}], ids=["gain", "residual"])
@pytest.mark.parametrize("kind", [UNet, BasicUNet])
def test_it_can_start_as_identity_and_learns_from_there(settings, kind, image):
    torch.manual_seed(0)
    channels = 1 + ("gain_and_offset" in settings)
    normalizer = (
        unet(channels) if kind is UNet else BasicUNet(3, 1, channels, features=(4, 4, 8, 8, 8, 4), norm="batch")
    )
    if kind is BasicUNet:
        image = image.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    network = NormalizerSegmentor(unet(4), normalizer, **settings)
    kaiming_initialize(network)
    assert not torch.allclose(network.normalize(image), image, atol=0.1)
    network.start_as_identity()
    assert torch.equal(network.normalize(image), image)
    network(image)[0].square().sum().backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in normalizer.parameters())


def test_a_residual_is_added_to_the_image(image):
    network = NormalizerSegmentor(unet(4), unet(1), residual=True).eval()
    expected = (image + network.normalizer(image)) * (image != 0)
    assert torch.equal(network.normalize(image), expected)


def test_what_cannot_start_as_identity():
    NormalizerSegmentor(unet(4)).start_as_identity()  # has no normalizer
    with pytest.raises(ConfigError, match=r"predicts the image itself.*Pass --normalizer_residual true"):
        NormalizerSegmentor(unet(4), unet(1)).start_as_identity()
    with pytest.raises(ConfigError, match="last layer of the normalizer is BatchNorm3d; expected a convolution"):
        NormalizerSegmentor(
            unet(4), nn.Sequential(nn.Conv3d(1, 1, 1), nn.BatchNorm3d(1)), residual=True
        ).start_as_identity()


def test_without_normalizer_the_segmentor_sees_the_image(image):
    network = NormalizerSegmentor(unet(4)).eval()
    assert torch.equal(network.normalize(image), image)
    assert torch.equal(network(image), network.segmentor(image))
    assert len(network.parameter_groups(1.0)) == 1


def test_both_learn_from_the_segmentation_and_the_normalizer_at_its_own_rate(network, image):
    network(image)[0].sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    optimizer = torch.optim.SGD(network.parameter_groups(1e-5), lr=1e-4)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in network.normalizer.parameters()} == {1e-5}
    assert {rates[id(p)] for p in network.segmentor.parameters()} == {1e-4}
    assert len(rates) == len(list(network.parameters()))


def test_it_can_be_exported_and_compared(network, image):
    network.eval()
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted(image), network(image))


def test_kaiming_initialization_has_the_deviation_of_he():
    layer, norm = nn.Conv3d(8, 64, 3), nn.BatchNorm3d(8)
    torch.manual_seed(0)
    kaiming_initialize(nn.Sequential(layer, norm))
    assert layer.weight.std().item() == pytest.approx((2 / (8 * 27)) ** 0.5, rel=0.05)
    assert (layer.bias == 0).all()
    assert (norm.weight == 1).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_transposed_convolution_keeps_the_scale_of_its_input(stride):
    """Each output has 8 * 27 / stride^3 inputs: PyTorch's fan would be 27, that of the outputs."""
    layer = nn.ConvTranspose3d(8, 1, 3, stride=stride, padding=1, output_padding=stride - 1)
    torch.manual_seed(0)
    kaiming_initialize(layer)
    found = torch.stack([layer(torch.randn(1, 8, 8, 8, 8))[..., 1:-1, 1:-1, 1:-1] for _ in range(20)])
    assert found.var().item() == pytest.approx(2, rel=0.25)
