# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segan_monai.networks.upsampled_convolution_3d import UpsampledConv3d, shifting_taps


@pytest.mark.parametrize("scale", [(2, 2, 2), (2, 2, 1), (1, 2, 2), (2, 1, 1)])
def test_values_and_gradients_are_those_of_both_layers(scale):
    torch.manual_seed(0)
    layer = UpsampledConv3d(3, 4, scale=scale).double().to(memory_format=torch.channels_last_3d)
    x = torch.rand(2, 3, 3, 4, 2, dtype=torch.float64).requires_grad_()
    expected = F.conv3d(
        F.interpolate(x, scale_factor=[float(n) for n in scale], mode="trilinear"), layer.weight, layer.bias, padding=1
    )
    found = layer.in_parts(x)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), (x, *layer.parameters())),
        torch.autograd.grad(expected.square().sum(), (x, *layer.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_a_line_is_shifted_without_upsampling():
    line = torch.tensor([1.0, 2.0, 3.0])
    shifted = [(taps @ line).tolist() for taps in shifting_taps(3, 1, line)]
    assert shifted == [[0, 1, 2], [1, 2, 3], [2, 3, 0]]


def test_large_products_are_used_where_they_are_cheaper():
    few, many = UpsampledConv3d(16, 3), UpsampledConv3d(16, 32)
    assert few.is_cheaper_in_parts(torch.empty(1, 16, 99, 99, 4))
    assert many.is_cheaper_in_parts(torch.empty(1, 16, 12, 14, 99))
    assert not many.is_cheaper_in_parts(torch.empty(1, 16, 12, 15, 4))
