# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.losses.multi_scale_l1 import MultiScaleL1Loss

# Layer 0 differs by 1 on its 4 elements, layer 1 by 3 on its single element.
FEATURES = [torch.ones(1, 1, 2, 2), torch.full((1, 1, 1, 1), 2.0)]
OTHERS = [torch.zeros(1, 1, 2, 2), torch.full((1, 1, 1, 1), -1.0)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (1 + 3) / 2),
        ({"layers": [0]}, 1),
        ({"layers": [1]}, 3),
        ({"layer_weights": [1, 4]}, (1 * 1 + 4 * 3) / 2),
        ({"reduction": "concat"}, (4 * 1 + 1 * 3) / 5),
        ({"reduction": "concat", "layer_weights": [1, 2]}, (4 * 1 + 2 * 1 * 3) / 5),
    ],
)
def test_hand_computed(settings, expected):
    assert MultiScaleL1Loss(**settings)([FEATURES], [OTHERS]).item() == pytest.approx(expected)


def test_several_critics_are_averaged():
    equal = MultiScaleL1Loss()([FEATURES, FEATURES], [OTHERS, FEATURES])
    assert equal.item() == pytest.approx((2 + 0) / 2)


def test_zero_for_equal_features_only():
    assert MultiScaleL1Loss()([FEATURES], [FEATURES]).item() == 0


def test_bfloat16_features_are_averaged_in_float32():
    features = [[torch.full((1, 1, 300, 300), 0.3, dtype=torch.bfloat16)]]
    zeros = [[torch.zeros(1, 1, 300, 300, dtype=torch.bfloat16)]]
    loss = MultiScaleL1Loss()(features, zeros)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(float(torch.tensor(0.3, dtype=torch.bfloat16)), rel=1e-6)


def test_bad_settings():
    for layers in ([], [-1]):
        with pytest.raises(ConfigError, match=r"layers is \[.*\]; expected one or more layer indices from 0"):
            MultiScaleL1Loss(layers=layers)
    with pytest.raises(ConfigError, match="reduction is 'sum'; expected 'per_layer' or 'concat'"):
        MultiScaleL1Loss(reduction="sum")
    with pytest.raises(ConfigError, match="1 layer_weights for 2 layers"):
        MultiScaleL1Loss(layers=[0, 1], layer_weights=[1])
    with pytest.raises(ConfigError, match="3 layer_weights for 2 layers"):
        MultiScaleL1Loss(layer_weights=[1, 1, 1])([FEATURES], [OTHERS])
    with pytest.raises(ConfigError, match=r"layers is \[3\]; expected indices from 0 to 1, the layers of the critic"):
        MultiScaleL1Loss(layers=[3])([FEATURES], [OTHERS])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_signs_over_counts(dtype):
    """Also where features are equal: there they are 0; and in the features' own memory format."""
    u = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=dtype).reshape(1, 2, 2, 1)
    u = u.contiguous(memory_format=torch.channels_last).requires_grad_()
    v = torch.tensor([2.0, 2.0, 2.0, 8.0], dtype=dtype).reshape(1, 2, 2, 1).requires_grad_()
    (8 * MultiScaleL1Loss()([[u]], [[v]])).backward()
    assert u.grad.flatten().tolist() == [-2, 0, 2, -2]
    assert v.grad.flatten().tolist() == [2, 0, -2, 2]
    assert u.grad.dtype == dtype
    assert u.grad.is_contiguous(memory_format=torch.channels_last)


def test_gradients_are_those_of_autograd():
    torch.manual_seed(0)
    features = [torch.randn(2, c, 4, 4).requires_grad_() for c in (2, 3)]
    others = [torch.randn(2, c, 4, 4).requires_grad_() for c in (2, 3)]
    MultiScaleL1Loss(layer_weights=[1, 3])([features], [others]).backward()
    plain = sum(w * (u - v).abs().mean() for w, u, v in zip([1, 3], features, others, strict=True)) / 2
    for tensor, expected in zip(features + others, torch.autograd.grad(plain, features + others), strict=True):
        torch.testing.assert_close(tensor.grad, expected)
