# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.networks.upsampled_convolution import UpsampledConv2d, upsampling_taps


def test_taps_of_a_line_of_two_by_hand():
    u, v = 0.75, 0.25
    expected = [
        [[0, 0], [1, 0], [u, v], [v, u]],
        [[1, 0], [u, v], [v, u], [0, 1]],
        [[u, v], [v, u], [0, 1], [0, 0]],
    ]
    assert upsampling_taps(2, torch.zeros(1)).tolist() == expected


@pytest.mark.parametrize("channels", [3, 20])  # below and above FEW_CHANNELS, which are computed in another order
@pytest.mark.parametrize("plane", [(1, 1), (5, 7), (8, 2)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_both_layers(channels, plane, memory_format):
    torch.manual_seed(0)
    ours = UpsampledConv2d(6, channels).double().to(memory_format=memory_format)
    weight, bias = ours.weight.detach().clone().requires_grad_(), ours.bias.detach().clone().requires_grad_()
    x = torch.rand(2, 6, *plane, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    y = x.detach().clone().requires_grad_()
    upsampled = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)(y)
    expected = torch.nn.functional.conv2d(upsampled, weight, bias, padding=1)
    result = ours.on_small_plane(x)
    torch.testing.assert_close(result, expected)
    factor = torch.rand_like(expected)
    (result * factor).sum().backward()
    (expected * factor).sum().backward()
    for found, wanted in ((x, y), (ours.weight, weight), (ours.bias, bias)):
        torch.testing.assert_close(found.grad, wanted.grad)


def test_large_planes_of_few_channels_are_convolved_as_written():
    narrow, wide = UpsampledConv2d(64, 16), UpsampledConv2d(512, 16)
    plane = torch.zeros(1, 1, 60, 60)
    assert not narrow.is_cheaper_on_small_plane(plane)
    assert wide.is_cheaper_on_small_plane(plane)
    assert UpsampledConv2d(64, 3).is_cheaper_on_small_plane(plane)


def test_bfloat16_is_as_near_to_float32_as_the_layers_as_written():
    torch.manual_seed(0)
    layer, x = UpsampledConv2d(64, 20, bias=False), torch.randn(2, 64, 9, 9)
    with torch.no_grad():
        exact = layer.as_written(x)
        with torch.autocast("cpu", torch.bfloat16):
            errors = [(f(x).float() - exact).square().mean().sqrt() for f in (layer.on_small_plane, layer.as_written)]
    assert layer.on_small_plane(x).dtype == torch.float32
    assert errors[0] < 2 * errors[1]


def test_exported_graphs_have_the_two_layers():
    layer, x = UpsampledConv2d(4, 3).eval(), torch.rand(1, 4, 5, 6)
    names = [str(node.target) for node in torch.export.export(layer, (x,)).graph.nodes]
    assert any("upsample_bilinear2d" in name for name in names)
    assert not any("bmm" in name for name in names)
    torch.testing.assert_close(torch.jit.script(layer)(x), layer(x))
    torch.testing.assert_close(torch.jit.trace(layer, x)(x), layer(x))
