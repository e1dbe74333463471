# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.losses import DomainAdversarialLoss


def logits(*probabilities):
    return torch.tensor(probabilities).log()


RAW = logits([0.7, 0.2, 0.1], [0.3, 0.6, 0.1])
GENERATED = logits([0.25, 0.25, 0.5], [0.1, 0.1, 0.8])


def test_the_discriminators_side_by_hand():
    found = DomainAdversarialLoss()(RAW, GENERATED, torch.tensor([0, 1]))
    expected = -(math.log(0.7) + math.log(0.6)) / 2 - (math.log(0.5) + math.log(0.8)) / 2
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_generators_side_by_hand():
    expected = (math.log(0.5) + math.log(0.8)) / 2
    assert DomainAdversarialLoss("minimax").generator(GENERATED).item() == pytest.approx(expected, rel=1e-5)
    expected = -(math.log(1 - 0.5) + math.log(1 - 0.8)) / 2
    assert DomainAdversarialLoss("non_saturating").generator(GENERATED).item() == pytest.approx(expected, rel=1e-5)


def test_confusion_by_hand_and_where_it_is_least():
    loss = DomainAdversarialLoss("confusion")
    expected = -(2 * math.log(0.25) + 2 * math.log(0.1)) / 4
    assert loss.generator(GENERATED).item() == pytest.approx(expected, rel=1e-5)
    alike, raw = (loss.generator(logits(p)).item() for p in ([0.49, 0.49, 0.02], [0.97, 0.01, 0.02]))
    assert math.log(2) < alike < raw, "content only with images that could be of either domain"


def test_minimax_is_the_other_side_of_the_discriminators_term():
    generated = GENERATED.clone().requires_grad_()
    loss = DomainAdversarialLoss("minimax")
    (theirs,) = torch.autograd.grad(loss(RAW, generated, torch.tensor([0, 1])), generated)
    (ours,) = torch.autograd.grad(loss.generator(generated), generated)
    torch.testing.assert_close(ours, -theirs)


def test_where_the_discriminator_is_certain_one_fades_and_the_other_does_not():
    norms = {}
    for kind in ("minimax", "non_saturating"):
        generated = torch.tensor([[0.0, 0.0, 12.0]], requires_grad=True)
        (gradient,) = torch.autograd.grad(DomainAdversarialLoss(kind).generator(generated), generated)
        assert gradient[0, 2] > 0, "G lowers the logit of 'generated'"
        norms[kind] = gradient.norm().item()
    assert norms["minimax"] < 1e-4
    assert norms["non_saturating"] > 1


def test_one_domain():
    loss = DomainAdversarialLoss()(torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, dtype=torch.long))
    assert loss.item() == pytest.approx(2 * math.log(2))


def test_unknown_kind():
    with pytest.raises(ConfigError, match="'wgan'; expected 'minimax', 'non_saturating' or 'confusion'"):
        DomainAdversarialLoss("wgan")
