# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import math
from contextlib import contextmanager

import pytest
import torch
from ignite.engine import Events
from monai.networks.nets import UNet
from torch import nn

from segan_monai.engines import AdversarialNormalizationTrainer, NonFiniteLossError
from segan_monai.errors import ConfigError
from segan_monai.losses import DomainAdversarialLoss, WeightedDiceLoss
from segan_monai.networks import DomainDiscriminator, NormalizerSegmentor


@pytest.fixture
def batch():
    torch.manual_seed(1)
    label = torch.randint(0, 4, (4, 1, 16, 16, 16))
    return {"image": torch.rand(4, 1, 16, 16, 16) + 0.1, "label": label, "domain": torch.tensor([0, 1, 1, 0])}


def unet(out_channels):
    return UNet(3, 1, out_channels, channels=(4, 8), strides=(2,), norm="batch")


def players(domains=2, normalizer=True):
    torch.manual_seed(0)
    network = NormalizerSegmentor(unet(4), unet(1) if normalizer else None)
    return network, DomainDiscriminator(domains, channels=(4, 8), dropout=0.0)


def make_trainer(network, discriminator, batches, lr=0.1, domains=("a", "b"), **settings):
    return AdversarialNormalizationTrainer(
        **{
            "device": "cpu",
            "max_epochs": 1,
            "train_data_loader": batches,
            "network": network,
            "optimizer": torch.optim.SGD(network.parameter_groups(lr), lr=lr),
            "discriminator": discriminator,
            "discriminator_optimizer": torch.optim.SGD(discriminator.parameters(), lr=lr),
            "loss_function": WeightedDiceLoss(),
            "domain_loss": DomainAdversarialLoss(),
            "domains": domains,
            "warm_up_epochs": 0,
            **settings,
        }
    )


def literal_iteration(network, discriminator, batch, weight, lr=0.1):
    """Eq. 1 evaluated in full in both steps, every network where the formula names it."""
    optimizers = [torch.optim.SGD(net.parameters(), lr=lr) for net in (network, discriminator)]
    before = copy.deepcopy(network)  # our D learns from the G of before the step
    before.train()
    for sign, optimizer, player in ((1, optimizers[0], network), (-1, optimizers[1], before)):
        for net in (network, discriminator, before):
            net.zero_grad()
        segmentation = WeightedDiceLoss()(player(batch["image"])[0], batch["label"])
        generated = discriminator(player.normalize(batch["image"]))
        domains = DomainAdversarialLoss()(discriminator(batch["image"]), generated, batch["domain"])
        (sign * (segmentation - weight * domains)).backward()
        optimizer.step()


def test_it_is_the_papers_game(batch):
    network, discriminator = players()
    literal = copy.deepcopy(network), copy.deepcopy(discriminator)
    make_trainer(network, discriminator, [batch], adversarial_weight=1.0).run()
    literal_iteration(*literal, batch, 1.0)
    for ours, theirs in zip((network, discriminator), literal, strict=True):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("learner", ["network", "discriminator"])
def test_each_step_gives_gradients_to_its_own_networks_alone(batch, learner):
    network, discriminator = players()
    trainer = make_trainer(network, discriminator, [batch])
    others = {"network": discriminator, "discriminator": network}[learner]
    seen = []

    @contextmanager
    def minimizing(phase, optimizer, take=trainer.minimizing):
        for net in (network, discriminator):
            net.zero_grad(set_to_none=True)
        with take(phase, optimizer) as step:
            yield step
        if (phase == "discriminator") == (learner == "discriminator"):
            seen.append([p.grad for p in others.parameters()])

    trainer.minimizing = minimizing
    trainer.run()
    assert len(seen) == 1
    assert all(gradient is None for gradient in seen[0])


def test_warm_up_is_the_normalizer_alone(batch):
    network, discriminator = players()
    before = copy.deepcopy(network.segmentor.state_dict()), copy.deepcopy(discriminator.state_dict())
    with torch.no_grad():
        expected = ((network.normalize(batch["image"]) - batch["image"]) ** 2).mean().item()
    trainer = make_trainer(network, discriminator, [batch] * 3, warm_up_epochs=2, max_epochs=3, lr=0.01)
    errors = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: errors.append(dict(e.state.output["terms"])))
    frozen = []
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda e: frozen.append(
            all(torch.equal(v, before[0][k]) for k, v in network.segmentor.state_dict().items())
            and all(torch.equal(v, before[1][k]) for k, v in discriminator.state_dict().items())
        ),
    )
    trainer.run()
    assert frozen == [True, True, False]
    assert errors[0]["reconstruction_mse"].item() == pytest.approx(expected, rel=1e-4)
    assert errors[5]["reconstruction_mse"] < errors[0]["reconstruction_mse"]
    assert list(errors[5]) == ["reconstruction_mse"]
    assert list(errors[6])[:3] == ["segmentation", "adversarial", "discriminator"]


def test_warm_up_ends_when_the_error_is_small(batch):
    epochs = {}
    for threshold in (None, 1e9, 1e-9):
        network, discriminator = players()
        settings = {"warm_up_epochs": 3, "warm_up_error": threshold, "max_epochs": 4, "lr": 0.01}
        trainer = make_trainer(network, discriminator, [batch], **settings)
        seen = epochs[threshold] = []
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda e, seen=seen: seen.append(e.warming_up))
        trainer.run()
    assert epochs == {None: [True] * 3 + [False], 1e9: [True] + [False] * 3, 1e-9: [True] * 3 + [False]}


def test_accuracy_by_domain_beside_chance():
    network, discriminator = players(domains=3)
    trainer = make_trainer(network, discriminator, [], domains=("a", "b", "c"))
    right = torch.eye(4)
    raw = right[[0, 1, 2, 0]]
    found = trainer.accuracies(raw, right[[3, 3, 0, 3]], torch.tensor([0, 1, 1, 1]))
    assert list(found) == ["accuracy_a", "accuracy_b", "accuracy_c", "accuracy_generated", "accuracy_chance"]
    assert [found[f"accuracy_{name}"].item() for name in ("a", "generated", "chance")] == [1, 0.75, 0.25]
    assert found["accuracy_b"].item() == pytest.approx(1 / 3)
    assert math.isnan(found["accuracy_c"]), "no image of it in the batch"


def test_weight_zero_leaves_the_discriminator_out(batch):
    network, discriminator = players()
    before = copy.deepcopy(discriminator.state_dict())
    trainer = make_trainer(network, discriminator, [batch], adversarial_weight=0.0)
    trainer.run()
    assert list(trainer.state.output["terms"]) == ["segmentation"]
    assert all(torch.equal(v, before[k]) for k, v in discriminator.state_dict().items())


def test_one_domain(batch):
    network, discriminator = players(domains=1)
    batch["domain"].zero_()
    trainer = make_trainer(network, discriminator, [batch], domains=("all",))
    trainer.run()
    assert trainer.state.output["terms"]["accuracy_chance"] == 0.5


def test_without_normalizer(batch):
    network, discriminator = players(normalizer=False)
    trainer = make_trainer(network, discriminator, [batch], adversarial_weight=0.0, warm_up_epochs=3)
    trainer.run()
    assert list(trainer.state.output["terms"]) == ["segmentation"], "nothing to warm up"
    with pytest.raises(ConfigError, match=r"no normalizer to train. Pass --adversarial_weight 0"):
        make_trainer(network, discriminator, [batch], adversarial_weight=1.0)


def test_a_normalizer_fools_a_discriminator_that_stands_still(batch):
    network, discriminator = players()
    trainer = make_trainer(network, discriminator, [batch] * 20, adversarial_weight=10.0)
    for group in trainer.discriminator_optimizer.param_groups:
        group["lr"] = 0.0
    terms = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: terms.append(e.state.output["terms"]["adversarial"].item())
    )
    trainer.run()
    assert terms[-1] < terms[0] - 0.05


def test_mixed_precision_follows_float32(batch):
    weights = []
    for amp in (False, True):
        network, discriminator = players()
        make_trainer(network, discriminator, [batch] * 3, lr=0.01, amp=amp).run()
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert not torch.equal(*weights)
    assert (weights[0] - weights[1]).abs().max() < 0.02


@pytest.mark.parametrize("term", ["segmentation", "adversarial"])
def test_a_loss_that_is_not_finite_stops_before_any_weight_changes(batch, term):
    network, discriminator = players()
    before = copy.deepcopy(network.state_dict())
    trainer = make_trainer(network, discriminator, [batch])
    broken = lambda *args: torch.tensor(float("nan"))  # noqa: E731
    if term == "segmentation":
        trainer.loss_function = broken
    else:
        trainer.domain_loss.generator = broken
    with pytest.raises(NonFiniteLossError, match=f"loss term '{term}' of the normalizer and segmentor became nan"):
        trainer.run()
    names = {name for name, _ in network.named_parameters()}
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items() if k in names)


def test_any_module_can_be_the_discriminator(batch):
    network, _ = players()
    trainer = make_trainer(network, nn.Sequential(nn.Flatten(), nn.Linear(16**3, 3)), [batch])
    trainer.run()
    assert trainer.state.output["terms"]["discriminator"] > 0


@pytest.mark.parametrize("kind", ["least_squares", "hinge", "wasserstein"])
def test_losses_of_other_gans(batch, kind):
    network, _ = players()
    discriminator = DomainDiscriminator(2, channels=(4, 8), dropout=0.0, norm=None)
    trainer = make_trainer(network, discriminator, [batch] * 12, domain_loss=DomainAdversarialLoss(kind), lr=0.01)
    found = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: found.append(dict(e.state.output["terms"])))
    trainer.run()
    assert found[-1]["discriminator"] < found[0]["discriminator"]
    assert ("gradient_penalty" in found[0]) == (kind == "wasserstein")
    assert ("accuracy_generated" in found[0]) == (kind != "wasserstein")
    assert found[0]["accuracy_chance"].item() == pytest.approx(1 / 2 if kind == "wasserstein" else 1 / 3)
    if kind == "wasserstein":
        assert found[-1]["gradient_penalty"] < found[0]["gradient_penalty"]
        with pytest.raises(ConfigError, match="batch norm"):
            make_trainer(*players(), [batch], domain_loss=DomainAdversarialLoss(kind))
