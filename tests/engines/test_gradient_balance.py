# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.engines.gradient_balance import MOST, balancing_factors, last_weight
from segan_monai.networks import SegANSegmentor
from segan_monai.networks.upsampled_convolution import UpsampledConv2d


def test_factors_are_ratios_of_gradient_norms():
    weight = torch.tensor([[3.0, 4.0]], requires_grad=True)
    reference = (weight * torch.tensor([[6.0, 8.0]])).sum()  # norm 10
    terms = {"a": weight.sum(), "b": (2 * weight[0, 0]).square(), "none": torch.ones((), requires_grad=True) * 1}
    factors = balancing_factors(reference, terms, weight)
    assert factors["a"].item() == pytest.approx(10 / 2**0.5)
    assert factors["b"].item() == pytest.approx(10 / 24)
    assert factors["none"].item() == MOST
    assert weight.grad is None


def test_small_gradients_in_float16_are_measured_with_the_scale_of_the_loss():
    """A gradient of 1e-9 is 0 in float16; with the scale it is measured. One that becomes infinite counts nothing."""
    weight = torch.tensor([[3.0, 4.0]], requires_grad=True)
    reference = (weight.half().float() * torch.tensor([[6e-9, 8e-9]])).sum()  # norm 1e-8
    terms = {"a": (weight.half().float() * torch.tensor([[3e-9, 4e-9]])).sum()}
    assert balancing_factors(weight.sum(), terms, weight)["a"].item() == MOST
    assert balancing_factors(reference, terms, weight, 2.0**16)["a"].item() == pytest.approx(2, rel=1e-2)
    too_large = (2 * weight.half().float()).sum()
    assert balancing_factors(too_large, terms, weight, 2.0**16)["a"].item() == 0


@pytest.mark.parametrize("full", [0, 4])
@pytest.mark.parametrize("amp", [False, True])
def test_the_last_weight_is_that_of_the_last_convolution(full, amp):
    segmentor = SegANSegmentor(1, 2, base_channels=4, full_resolution_channels=full)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        logits = segmentor(torch.rand(1, 1, 32, 32))
    last = segmentor.head[-1] if full else next(m for m in segmentor.decoder[-1] if isinstance(m, UpsampledConv2d))
    assert last_weight(logits[:1]) is last.weight


def test_an_output_without_weights():
    with pytest.raises(ValueError, match="depends on no weight"):
        last_weight(torch.ones(1, requires_grad=True) * 2)  # one axis, such as a bias
