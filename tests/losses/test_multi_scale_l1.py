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
        ({"reduction": "sum"}, (4 * 1 + 1 * 3) / 2),
        ({"reduction": "sum", "layer_weights": [1, 2]}, (4 * 1 + 2 * 1 * 3) / 2),
        ({"reduction": "balanced"}, (1 + 3) / 2),
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
    with pytest.raises(ConfigError, match="reduction is 'mean'; expected 'sum', 'per_layer', 'concat', 'balanced'"):
        MultiScaleL1Loss(reduction="mean")
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


def test_sum_of_norms_is_a_mean_over_images():
    """Eq. 2 averages over images: the loss of a batch is the mean of the losses of its images."""
    loss = MultiScaleL1Loss(reduction="sum")
    first, second = [torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4, 4)], [torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4, 4)]
    single = [loss([[f[i : i + 1] for f in first]], [[f[i : i + 1] for f in second]]) for i in (0, 1)]
    assert loss([first], [second]).item() == pytest.approx(float(sum(single)) / 2, rel=1e-6)


def game():
    """Features of a prediction in two layers whose gradients on it differ 100 times, and those of the label."""
    prediction = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    return prediction, [[prediction, 100 * prediction]], [[torch.ones(1, 1, 2, 2), 100 * torch.ones(1, 1, 2, 2)]]


def test_measured_shares():
    """d/dp of (1/2) mean|p - 1| is -1/8 at each of four pixels, a norm of 1/4; layer 1 has 100 times as much."""
    prediction, features, others = game()
    losses, norms = MultiScaleL1Loss().measure(features, others, prediction)
    assert losses.tolist() == pytest.approx([0.25, 25])
    assert norms.tolist() == pytest.approx([0.25, 25])
    assert prediction.grad is None


def test_small_gradients_in_float16_are_measured_with_the_scale_of_the_loss():
    """Of 1e-4 / 65536 per pixel, which float16 has not; one that becomes infinite counts as 0."""
    prediction = torch.ones(1, 1, 256, 256, requires_grad=True)
    features, others = [[prediction.half().float() * 1e-4]], [[torch.zeros(1, 1, 256, 256)]]
    loss = MultiScaleL1Loss()
    assert loss.measure(features, others, prediction)[1].item() == 0
    assert loss.measure(features, others, prediction, 2.0**16)[1].item() == pytest.approx(1e-4 / 256, rel=1e-2)
    assert loss.measure(features, others, prediction, 2.0**50)[1].item() == 0


def test_balanced_layers_have_gradients_of_one_norm():
    prediction, features, others = game()
    loss = MultiScaleL1Loss(reduction="balanced")
    _, before = loss.measure(features, others, prediction)
    assert before.tolist() == pytest.approx([0.25, 25])
    _, after = loss.measure(features, others, prediction)
    assert after.tolist() == pytest.approx([12.625, 12.625])  # the mean of both
    assert loss.gradient_norms.tolist() == pytest.approx([0.25, 25])  # of the layers as they are

    resumed = MultiScaleL1Loss(reduction="balanced")
    resumed.load_state_dict(loss.state_dict())
    assert resumed(features, others).item() == loss(features, others).item() == pytest.approx(25.25)


def test_layer_without_gradient_keeps_its_scale():
    """A critic of zeros gives its layers no gradient; the scale of such a layer stays 1."""
    prediction, features, others = game()
    features, others = [[features[0][0], torch.zeros(1, 1, 1, 1)]], [[others[0][0], torch.ones(1, 1, 1, 1)]]
    loss = MultiScaleL1Loss(reduction="balanced")
    assert loss.measure(features, others, prediction)[1].tolist() == [0.25, 0]
    assert loss.layer_losses(features, others).tolist() == pytest.approx([0.125, 0.5])


def test_other_reductions_have_no_state():
    assert not MultiScaleL1Loss().state_dict()
