# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Events
from monai.losses import DeepSupervisionLoss, DiceLoss

from segan_monai.engines import NonFiniteLossError, SegANTrainer
from segan_monai.engines.parameters import frozen
from segan_monai.errors import ConfigError
from segan_monai.losses import ExclusiveClassLoss, MultiScaleL1Loss
from segan_monai.networks import SegANCritics, SegANSegmentor


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return {"image": torch.rand(4, 2, 32, 32), "label": (torch.rand(4, 3, 32, 32) > 0.5).float()}


def players():
    torch.manual_seed(0)
    return SegANSegmentor(2, 3, base_channels=4), SegANCritics(2, 3, base_channels=4)


def make_trainer(segmentor, critic, batches, lr=0.1, **settings):
    return SegANTrainer(
        max_epochs=1,
        train_data_loader=batches,
        network=segmentor,
        optimizer=torch.optim.SGD(segmentor.parameters(), lr=lr),
        critic=critic,
        critic_optimizer=torch.optim.SGD(critic.parameters(), lr=lr),
        **{"device": "cpu", "loss_function": MultiScaleL1Loss(), **settings},
    )


def literal_iteration(segmentor, critic, batch, clamp, lr=0.1):
    """The algorithm as the paper writes it: two segmentor passes, gradients into everything, default memory format."""
    loss = MultiScaleL1Loss()
    optimizers = [torch.optim.SGD(net.parameters(), lr=lr) for net in (segmentor, critic)]
    image, label = batch["image"], batch["label"]
    for sign, optimizer in ((-1, optimizers[1]), (1, optimizers[0])):
        segmentor.zero_grad()
        critic.zero_grad()
        prediction = segmentor(image).sigmoid()
        distance = loss(critic(image, prediction), critic(image, label))
        (sign * distance).backward()
        optimizer.step()
        if sign < 0:
            for parameter in critic.parameters():
                if parameter.ndim > 1:
                    parameter.data.clamp_(-clamp, clamp)
            critic_gradients = [p.grad.clone() for p in critic.parameters()]
    return critic_gradients


def test_deep_supervision_weighs_the_loss_of_every_level(batch):
    torch.manual_seed(0)
    segmentor = SegANSegmentor(2, 3, base_channels=4, deep_supervision=2)
    outputs = copy.deepcopy(segmentor)(batch["image"])
    dice = DiceLoss(sigmoid=True, batch=True)
    expected = sum(w * dice(o, batch["label"]) for w, o in zip((4 / 7, 2 / 7, 1 / 7), outputs, strict=True))
    loss = DeepSupervisionLoss(dice, weights=[0.5**n / 1.75 for n in range(3)])
    trainer = make_trainer(segmentor, players()[1], [batch], supervised_loss=loss, supervised_weight=1.0)
    trainer.run()
    torch.testing.assert_close(trainer.state.output["terms"]["supervised"], expected.detach())
    torch.testing.assert_close(trainer.state.output["pred"], outputs[0].detach())
    assert all(head.weight.grad.abs().max() > 0 for head in segmentor.deep_heads)


def test_gradients_are_those_of_the_literal_algorithm(batch):
    segmentor, critic = players()
    literal_segmentor, literal_critic = copy.deepcopy(segmentor), copy.deepcopy(critic)
    trainer = make_trainer(segmentor, critic, [batch], clamp=0.05)
    trainer.run()
    critic_gradients = literal_iteration(literal_segmentor, literal_critic, batch, clamp=0.05)

    for ours, literal in zip(critic.parameters(), critic_gradients, strict=True):
        torch.testing.assert_close(ours.grad, literal, atol=1e-5, rtol=1e-5)
    for ours, literal in zip(segmentor.parameters(), literal_segmentor.parameters(), strict=True):
        assert literal.grad.abs().max() > 0
        torch.testing.assert_close(ours.grad, literal.grad, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours, literal, atol=1e-5, rtol=1e-5)
    for ours, literal in zip(critic.parameters(), literal_critic.parameters(), strict=True):
        torch.testing.assert_close(ours, literal, atol=1e-5, rtol=1e-5)


def test_critic_climbs_and_segmentor_descends(batch):
    def distance(segmentor, critic):
        with torch.no_grad():
            prediction = segmentor(batch["image"]).sigmoid()
            return MultiScaleL1Loss()(critic(batch["image"], prediction), critic(batch["image"], batch["label"]))

    segmentor, critic = players()
    before = distance(segmentor, critic)
    only_critic = make_trainer(segmentor, critic, [batch] * 5, clamp=10)
    for group in only_critic.optimizer.param_groups:
        group["lr"] = 0.0
    only_critic.run()
    assert distance(segmentor, critic) > before

    segmentor, critic = players()
    only_segmentor = make_trainer(segmentor, critic, [batch] * 5, clamp=10)
    for group in only_segmentor.critic_optimizer.param_groups:
        group["lr"] = 0.0
    only_segmentor.run()
    assert distance(segmentor, critic) < before


def test_convolutions_are_clamped_and_norms_by_choice(batch):
    for clamp_norm in (False, True):
        segmentor, critic = players()
        make_trainer(segmentor, critic, [batch], clamp=0.01, clamp_norm=clamp_norm).run()
        weights = [p for p in critic.parameters() if p.ndim > 1]
        norms = [m.weight for m in critic.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert max(float(w.detach().abs().max()) for w in weights) == pytest.approx(0.01)
        largest = max(float(w.detach().abs().max()) for w in norms)
        assert largest == pytest.approx(0.01) if clamp_norm else largest > 0.9


def test_supervised_term_is_weighted_and_named(batch):
    segmentor, critic = players()
    dice = DiceLoss(sigmoid=True, squared_pred=True)
    with torch.no_grad():
        expected = dice(segmentor(batch["image"]), batch["label"])
    trainer = make_trainer(segmentor, critic, [batch], supervised_loss=dice, supervised_weight=2.0)
    trainer.run()
    terms = trainer.state.output["terms"]
    assert list(terms) == ["critic_l1", "segmentor_l1", "supervised"]
    assert terms["supervised"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert trainer.state.output["loss"].item() == pytest.approx(
        terms["segmentor_l1"].item() + 2 * terms["supervised"].item(), rel=1e-5
    )


def test_mixed_precision_follows_float32(batch):
    weights = []
    for amp in (False, True):
        segmentor, critic = players()
        make_trainer(segmentor, critic, [batch] * 3, amp=amp).run()
        weights.append(torch.cat([p.detach().flatten() for p in segmentor.parameters()]))
    assert not torch.equal(*weights)
    assert (weights[0] - weights[1]).abs().max() < 0.01


def test_frozen_networks_pass_gradients_through(batch):
    _, critic = players()
    image = batch["image"].requires_grad_()
    with frozen(critic):
        features = critic(image, batch["label"])
    features[0][-1].sum().backward()
    assert image.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in critic.parameters())


@pytest.mark.parametrize(("key", "term"), [("label", "critic_l1"), ("image", "critic_l1")])
def test_a_loss_that_is_not_finite_stops_before_any_weight_changes(batch, key, term):
    segmentor, critic = players()
    before = copy.deepcopy(segmentor.state_dict()), copy.deepcopy(critic.state_dict())
    batch[key][0, 0, 3, 3] = float("nan")
    trainer = make_trainer(segmentor, critic, [batch])
    with pytest.raises(
        NonFiniteLossError, match=f"loss term '{term}' of the critic became nan in epoch 1, iteration 1"
    ):
        trainer.run()
    parameters = {name for name, _ in segmentor.named_parameters()}
    assert all(torch.equal(v, before[0][k]) for k, v in segmentor.state_dict().items() if k in parameters)
    parameters = {name for name, _ in critic.named_parameters()}
    assert all(torch.equal(v, before[1][k]) for k, v in critic.state_dict().items() if k in parameters)


def test_the_supervised_term_is_named_when_it_is_the_one(batch):
    segmentor, critic = players()
    trainer = make_trainer(
        segmentor, critic, [batch], supervised_loss=lambda logits, label: logits.sum() / 0, supervised_weight=1.0
    )
    with pytest.raises(NonFiniteLossError, match="loss term 'supervised' of the segmentor became"):
        trainer.run()


def test_the_input_layer_alone_trains_the_segmentor_and_no_critic(batch):
    """S3-3C-s0: the loss is the L1 distance of the masked images, in which the critic has no part."""
    segmentor, critic = players()
    before = copy.deepcopy(critic.state_dict()), copy.deepcopy(segmentor.state_dict())
    image, label = batch["image"], batch["label"]
    with torch.no_grad():
        difference = (segmentor(image).sigmoid() - label).abs()
        expected = (image[:, None] * difference[:, :, None]).mean()
    trainer = make_trainer(segmentor, critic, [batch], clamp=10, loss_function=MultiScaleL1Loss(layers=[0]))
    trainer.run()
    assert trainer.state.output["terms"]["segmentor_l1"].item() == pytest.approx(expected.item(), rel=1e-5)
    weights = dict(critic.named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in before[0].items() if name in weights)
    weights = dict(segmentor.named_parameters())
    assert any(not torch.equal(value, weights[name]) for name, value in before[1].items() if name in weights)


def test_the_adversarial_term_is_weighted(batch):
    segmentor, critic = players()
    trainer = make_trainer(segmentor, critic, [batch], adversarial_weight=0.25)
    trainer.run()
    terms = trainer.state.output["terms"]
    assert trainer.state.output["loss"].item() == pytest.approx(0.25 * terms["segmentor_l1"].item(), rel=1e-5)


def test_without_adversarial_weight_it_is_plain_training(batch):
    segmentor, critic = players()
    plain, before = copy.deepcopy(segmentor), copy.deepcopy(critic.state_dict())
    loss = torch.nn.BCEWithLogitsLoss()
    settings = {"supervised_loss": loss, "supervised_weight": 1.0, "adversarial_weight": 0.0}
    trainer = make_trainer(segmentor, critic, [batch], channels_last=False, **settings)
    trainer.run()
    assert list(trainer.state.output["terms"]) == ["supervised"]
    loss(plain.train()(batch["image"]), batch["label"]).backward()
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    for ours, expected in zip(segmentor.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, expected)
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())


def test_the_critic_joins_in_a_later_epoch(batch):
    segmentor, critic = players()
    before = copy.deepcopy(critic.state_dict())
    settings = {"supervised_loss": DiceLoss(sigmoid=True), "supervised_weight": 1.0}
    trainer = make_trainer(segmentor, critic, [batch], critic_start=3, **settings)
    terms, same = [], []

    @trainer.on(Events.EPOCH_COMPLETED)
    def look(engine):
        terms.append(list(engine.state.output["terms"]))
        same.append(all(torch.equal(value, before[name]) for name, value in critic.state_dict().items()))

    trainer.state.max_epochs = 3
    trainer.run()
    assert terms == [["supervised"], ["supervised"], ["critic_l1", "segmentor_l1", "supervised"]]
    assert same == [True, True, False]


@pytest.mark.parametrize("settings", [{"critic_start": 2}, {"adversarial_weight": 0.0}])
def test_a_segmentor_without_any_loss_is_refused(batch, settings):
    with pytest.raises(ConfigError, match=r"the segmentor has no loss: .*supervised_weight 0.0. Expected a supervised"):
        make_trainer(*players(), [batch], **settings)


@pytest.mark.slow
def test_compiled_players_learn_the_same_and_keep_their_names(batch):
    """``aot_eager`` traces forward and backward as ``inductor`` does, without a compiler."""
    results = []
    for backend in (None, "aot_eager"):
        torch.manual_seed(0)
        segmentor = SegANSegmentor(2, 3, base_channels=4, num_levels=2)
        critic = SegANCritics(2, 3, base_channels=4, num_levels=2)
        names = list(segmentor.state_dict()), list(critic.state_dict())
        trainer = make_trainer(segmentor, critic, [batch], compile=backend)
        trainer.run()
        assert names == (list(segmentor.state_dict()), list(critic.state_dict()))
        results.append([*segmentor.state_dict().values(), *critic.state_dict().values()])
        assert list(trainer.state.output["terms"]) == ["critic_l1", "segmentor_l1"]
    for ours, compiled in zip(*results, strict=True):
        torch.testing.assert_close(ours, compiled, atol=1e-5, rtol=1e-5)


def test_buffers_of_losses_are_on_the_device(batch):
    """A resumed loss with scales would otherwise have them on the CPU. ``meta`` stands for any other device."""
    losses = (
        MultiScaleL1Loss(reduction="balanced"),
        ExclusiveClassLoss({"a": [1], "b": [2]}, torch.nn.CrossEntropyLoss()),
    )
    settings = {"loss_function": losses[0], "supervised_loss": losses[1], "supervised_weight": 1.0}
    make_trainer(*players(), [batch], **settings, device="meta")
    assert losses[0].gradient_norms.is_meta
    assert losses[1].classes.is_meta
