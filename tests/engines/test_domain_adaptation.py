# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Events
from monai.networks.nets import UNet
from torch import nn

from segan_monai.engines import AdversarialNormalizationTrainer, DomainAdaptationTrainer
from segan_monai.engines.domain_adaptation import running_statistics_unchanged
from segan_monai.errors import ConfigError, DataError
from segan_monai.losses import DomainAdversarialLoss, WeightedDiceLoss
from segan_monai.networks import DomainDiscriminator, NormalizerSegmentor


@pytest.fixture
def batch():
    torch.manual_seed(1)
    label = torch.randint(0, 3, (2, 1, 8, 8, 8))
    return {"image": torch.rand(2, 1, 8, 8, 8) + 0.1, "label": label, "domain": torch.tensor([0, 0])}


@pytest.fixture
def unlabeled():
    torch.manual_seed(2)
    return {"image": 3 * torch.rand(2, 1, 8, 8, 8) + 5, "domain": torch.tensor([1, 1])}


def unet(out_channels):
    return UNet(3, 1, out_channels, channels=(4, 8), strides=(2,), norm="batch")


def make(batches, kind=DomainAdaptationTrainer, normalizer=True, **settings):
    torch.manual_seed(0)
    network = NormalizerSegmentor(unet(3), unet(1) if normalizer else None, residual=True)
    discriminator = DomainDiscriminator(2, channels=(4, 8), dropout=0.0)
    critic = DomainDiscriminator(1, in_channels=3, channels=(4, 8), dropout=0.0)
    if "output_weight" in settings:
        settings["output_critic"] = critic
        settings["output_critic_optimizer"] = torch.optim.SGD(critic.parameters(), lr=0.1)
    return kind(
        **{
            "device": "cpu",
            "max_epochs": 1,
            "train_data_loader": batches,
            "network": network,
            "optimizer": torch.optim.SGD(network.parameter_groups(0.1), lr=0.1),
            "discriminator": discriminator,
            "discriminator_optimizer": torch.optim.SGD(discriminator.parameters(), lr=0.1),
            "loss_function": WeightedDiceLoss(),
            "domain_loss": DomainAdversarialLoss("confusion"),
            "domains": ("source", "target"),
            "warm_up_epochs": 0,
            **settings,
        }
    )


def terms_of(trainer):
    found = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: found.append(dict(e.state.output["terms"])))
    trainer.run()
    return found


def test_without_unlabelled_images_it_is_the_trainer_that_it_extends(batch):
    ours, theirs = make([batch] * 2), make([batch] * 2, AdversarialNormalizationTrainer)
    for trainer in (ours, theirs):
        trainer.run()
    for mine, other in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_the_terms_by_hand(batch, unlabeled):
    trainer = make([batch], unlabeled_data_loader=[unlabeled], identity_weight=0.5, output_weight=2.0)
    network, discriminator, critic = (
        copy.deepcopy(net).train() for net in (trainer.network, trainer.discriminator, trainer.output_critic)
    )
    both = torch.cat([batch["image"], unlabeled["image"]])
    logits, normalized = network(both)
    maps = logits.softmax(dim=1)
    expected = {
        "segmentation": WeightedDiceLoss()(logits[:2], batch["label"]),
        "adversarial": DomainAdversarialLoss("confusion").generator(discriminator(normalized)),
        "identity": (normalized - both).abs().mean(),
        "output": -critic(maps[2:]).log_softmax(dim=1)[:, 0].mean(),
    }
    (found,) = terms_of(trainer)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), msg=name, atol=1e-5, rtol=1e-4)
    total = expected["segmentation"] + expected["adversarial"] + 0.5 * expected["identity"] + 2 * expected["output"]
    assert trainer.state.output["loss"].item() == pytest.approx(total.item(), rel=1e-4)
    assert trainer.state.output["pred"].shape == (2, 3, 8, 8, 8), "of the labelled images alone"
    # D saw both domains
    assert not found["accuracy_source"].isnan()
    assert not found["accuracy_target"].isnan()


def test_the_output_critic_learns_to_tell_labelled_from_unlabelled(batch, unlabeled):
    trainer = make(
        [batch] * 15, unlabeled_data_loader=[unlabeled], output_weight=1e-9, adversarial_weight=0.0, normalizer=False
    )
    found = terms_of(trainer)
    assert list(found[0]) == ["segmentation", "output", "output_critic"]
    assert found[-1]["output_critic"] < found[0]["output_critic"]


def test_critics_join_later_and_until_then_no_unlabelled_image_is_used(batch, unlabeled):
    settings = {"output_weight": 0.1, "discriminator_start": 2, "max_epochs": 2}
    trainer = make([batch], unlabeled_data_loader=[unlabeled], **settings)
    alone = make([batch], adversarial_weight=0.0)
    first, second = terms_of(trainer)
    assert list(first) == ["segmentation"]
    assert {"adversarial", "output", "discriminator", "output_critic"} <= set(second)
    assert terms_of(alone)[0]["segmentation"] == first["segmentation"]


def test_running_statistics_are_those_of_the_target(batch, unlabeled):
    settings = {"adversarial_weight": 0.0, "unlabeled_statistics": True, "normalizer": False}
    trainer = make([batch] * 60, unlabeled_data_loader=[unlabeled], **settings)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    trainer.run()
    norm = next(module for module in trainer.network.modules() if isinstance(module, nn.BatchNorm3d))
    seen = []
    norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    trainer.network.train()(unlabeled["image"])
    torch.testing.assert_close(norm.running_mean, seen[0].mean(dim=(0, 2, 3, 4)), atol=0.02, rtol=0.02)


def test_running_statistics_can_stay():
    norm = nn.BatchNorm3d(2, momentum=0.3)
    with running_statistics_unchanged(norm):
        norm(torch.rand(2, 2, 2, 2, 2))
    assert (norm.running_mean == 0).all()
    assert norm.momentum == 0.3
    norm(torch.rand(2, 2, 2, 2, 2))
    assert (norm.running_mean != 0).all()


def test_what_a_term_lacks_is_named(batch, unlabeled):
    with pytest.raises(ConfigError, match=r"output_weight is 0.1, but there are no unlabelled images.*--unlabeled_dom"):
        make([batch], output_weight=0.1)
    with pytest.raises(ConfigError, match="unlabeled_statistics is True, but there are no unlabelled images"):
        make([batch], unlabeled_statistics=True)
    with pytest.raises(ConfigError, match=r"output_weight is 0.1 and unlabeled_statistics is true, .* Pass one of the"):
        make([batch], unlabeled_data_loader=[unlabeled], output_weight=0.1, unlabeled_statistics=True)
    with pytest.raises(ConfigError, match=r"identity_weight is 0.1, but the network has no normalizer"):
        make([batch], identity_weight=0.1, adversarial_weight=0.0, normalizer=False)
    other = {**unlabeled, "image": torch.rand(2, 1, 8, 8, 16)}
    with pytest.raises(
        DataError, match=r"unlabelled cases has images of shape \(1, 8, 8, 16\); expected \(1, 8, 8, 8\)"
    ):
        make([batch], unlabeled_data_loader=[other]).run()
