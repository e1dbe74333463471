# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.losses import DomainAdversarialLoss
from segan_monai.losses.domain_adversarial import check_critic, gradient_penalty
from segan_monai.networks import DomainDiscriminator


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
    with pytest.raises(ConfigError, match=r"'wgan'; expected 'minimax', .*, 'hinge' or 'wasserstein'"):
        DomainAdversarialLoss("wgan")


SCORES = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.5, -0.5]])
FAKES = torch.tensor([[0.0, 0.5, -1.0]])
BY_HAND = {
    # D: (.25 + 1 + 4, with class 0 at 1) = .25 + 1 + 4; (1.5^2 + .5^2 + .5^2); fake 0 + .25 + (-1 - 1)^2; G: 1
    "least_squares": ((0.25 + 1 + 4 + 2.25 + 0.25 + 0.25) / 2 + 0.25 + 4, 1.0),
    # D: max(0, .5) + 0 + 3; 2.5 + .5 + .5; fake 1 + 1.5 + 2; G: -1
    "hinge": ((3.5 + 3.5) / 2 + 4.5, -1.0),
    # D: mean(2, -.5) - (-1) + cross-entropy of the two domains; G: -1
    "wasserstein": (1.75 + (math.log1p(math.exp(-1.5)) + math.log1p(math.exp(1.0))) / 2, -1.0),
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_losses_of_other_gans_by_hand(kind):
    loss = DomainAdversarialLoss(kind)
    of_discriminator, of_generator = BY_HAND[kind]
    assert loss(SCORES, FAKES, torch.tensor([0, 1])).item() == pytest.approx(of_discriminator, rel=1e-5)
    assert loss.generator(FAKES).item() == pytest.approx(of_generator)


@pytest.mark.parametrize("kind", BY_HAND)
def test_the_generator_lowers_the_score_of_generated_alone(kind):
    generated = torch.tensor([[0.3, -0.2, 2.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(DomainAdversarialLoss(kind).generator(generated), generated)
    assert gradient[0, 2] > 0
    assert gradient[0, :2].abs().sum() == 0


def test_gradient_penalty_by_hand():
    """The gradient of a linear critic is its weight, 3 and 4 on two voxels: (5 - 1)^2 wherever it is measured."""
    weight = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    penalty = gradient_penalty(lambda image: image.flatten(1) @ weight.T, torch.rand(4, 1, 2), torch.rand(4, 1, 2))
    assert penalty.item() == pytest.approx(16, rel=1e-5)
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient[2], 2 * 4 * torch.tensor([0.6, 0.8]))


def test_the_penalty_is_measured_between_raw_and_generated_images_of_other_samples():
    seen = []

    def critic(image):
        seen.append(image.detach())
        return (image**2).flatten(1).sum(dim=1, keepdim=True)

    gradient_penalty(critic, torch.zeros(2, 1, 3), torch.tensor([1.0, 5.0])[:, None, None].expand(2, 1, 3))
    assert 0 < seen[0][0].max() < 5
    assert 0 < seen[0][1].max() < 1


def test_a_penalty_needs_a_critic_without_batch_norm():
    check_critic(DomainDiscriminator(2, channels=(4, 4), norm=("group", {"num_groups": 1})))
    check_critic(DomainDiscriminator(2, channels=(4, 4), norm=None))
    with pytest.raises(ConfigError, match=r"discriminator has batch norm.*Pass --discriminator_norm instance"):
        check_critic(DomainDiscriminator(2, channels=(4, 4)))
