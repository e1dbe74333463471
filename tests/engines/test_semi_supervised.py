# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import math

import pytest
import torch
from ignite.engine import Events
from monai.losses import DiceLoss

from segan_monai.engines import NonFiniteLossError, SegANTrainer, SemiSupervisedTrainer
from segan_monai.engines.parameters import frozen
from segan_monai.errors import ConfigError, DataError
from segan_monai.losses import ConsistencyLoss, MultiScaleL1Loss, UnpairedL1Loss
from segan_monai.networks import SegANCritics, SegANSegmentor

DICE = DiceLoss(sigmoid=True, squared_pred=True, batch=True)


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return {"image": torch.rand(3, 2, 32, 32), "label": (torch.rand(3, 2, 32, 32) > 0.5).float()}


@pytest.fixture
def unlabeled():
    torch.manual_seed(2)
    return [{"image": torch.rand(2, 2, 32, 32), "case": ["a", "b"]} for _ in range(2)]


def make_trainer(batches, kind=SemiSupervisedTrainer, critic=None, lr=0.1, **settings):
    torch.manual_seed(0)
    segmentor = SegANSegmentor(2, 2, base_channels=4, num_levels=2)
    critics = SegANCritics(2, 2, base_channels=4, num_levels=2, **(critic or {"norm": False}))
    return kind(
        device="cpu",
        train_data_loader=batches,
        network=segmentor,
        optimizer=torch.optim.SGD(segmentor.parameters(), lr=lr),
        critic=critics,
        critic_optimizer=torch.optim.SGD(critics.parameters(), lr=lr),
        loss_function=MultiScaleL1Loss(),
        **{"max_epochs": 1, "supervised_loss": DICE, "supervised_weight": 1.0, "clamp": 0.5, **settings},
    )


def make_unlabeled(batches, unlabeled, **settings):
    return make_trainer(batches, **{"unlabeled_data_loader": unlabeled, "balance_gradients": False, **settings})


def state_of(trainer):
    return [*trainer.network.state_dict().values(), *trainer.critic.state_dict().values()]


@pytest.mark.parametrize("amp", [False, True])
def test_without_the_new_terms_it_is_the_trainer_of_segan_bit_for_bit(batch, unlabeled, amp):
    plain = make_trainer([batch] * 3, SegANTrainer, amp=amp)
    ours = make_unlabeled([batch] * 3, unlabeled, amp=amp)
    torch.manual_seed(5)
    plain.run()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    ours.run()
    assert torch.equal(torch.rand(1), drawn), "nothing random is drawn"
    assert all(torch.equal(a, b) for a, b in zip(state_of(plain), state_of(ours), strict=True))
    assert list(ours.state.output["terms"]) == ["critic_l1", "segmentor_l1", "supervised"]
    assert ours.data_loader == [batch] * 3, "no unlabelled image is loaded"


def test_unpaired_term_by_hand(batch, unlabeled):
    trainer = make_unlabeled([batch], unlabeled, adversarial_weight=0.0, unpaired_weight=0.3, unpaired_momentum=0.0)
    segmentor, critic = copy.deepcopy(trainer.network), copy.deepcopy(trainer.critic)
    trainer.run()

    loss, u = UnpairedL1Loss(), unlabeled[0]["image"]
    logits = segmentor.train()(torch.cat([batch["image"], u]))
    prediction = logits[3:].sigmoid()
    climbed = loss(critic(u, prediction.detach()), critic(batch["image"], batch["label"]))
    (-climbed).backward()
    torch.optim.SGD(critic.parameters(), lr=0.1).step()
    for weight in critic.parameters():
        if weight.ndim > 1:
            weight.data.clamp_(-0.5, 0.5)
    with frozen(critic):
        descended = loss.to_labelled(critic(u, prediction))
    supervised = DICE(logits[:3], batch["label"])
    (supervised + 0.3 * descended).backward()
    torch.optim.SGD(segmentor.parameters(), lr=0.1).step()

    terms = trainer.state.output["terms"]
    assert list(terms) == ["critic_unpaired", "weight_unpaired", "supervised", "segmentor_unpaired"]
    assert terms["critic_unpaired"].item() == pytest.approx(climbed.item(), rel=1e-5)
    assert terms["segmentor_unpaired"].item() == pytest.approx(descended.item(), rel=1e-5)
    assert terms["weight_unpaired"].item() == pytest.approx(0.3)
    assert trainer.state.output["loss"].item() == pytest.approx((supervised + 0.3 * descended).item(), rel=1e-5)
    for ours, expected in zip(
        state_of(trainer), [*segmentor.state_dict().values(), *critic.state_dict().values()], strict=True
    ):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["hinge", "least_squares"])
def test_patch_term_by_hand(batch, unlabeled, kind):
    critic = {"norm": False, "patch_score": True, "spectral_norm": True}
    settings = {"adversarial_weight": 0.0, "patch_weight": 0.2, "patch_loss": kind, "clamp": None, "lr": 0.0}
    trainer = make_unlabeled([batch], unlabeled, critic=critic, **settings)
    segmentor, critics = copy.deepcopy(trainer.network), copy.deepcopy(trainer.critic)
    trainer.run()
    u = unlabeled[0]["image"]
    with torch.no_grad():
        prediction = segmentor.train()(torch.cat([batch["image"], u]))[3:].sigmoid()
        fake = critics.patch_scores(critics(u, prediction))
        true = critics.patch_scores(critics(batch["image"], batch["label"]))
        again = critics.patch_scores(critics(u, prediction))  # one more power iteration
    terms = trainer.state.output["terms"]
    assert list(terms) == ["critic_patch", "weight_patch", "supervised", "segmentor_patch"]
    if kind == "hinge":
        expected = sum((1 - y).relu().mean() + (1 + p).relu().mean() for p, y in zip(fake, true, strict=True)) / 2
        descended = -sum(p.mean() for p in again) / 2
    else:
        expected = sum((y - 1).square().mean() + p.square().mean() for p, y in zip(fake, true, strict=True)) / 2
        descended = sum((p - 1).square().mean() for p in again) / 2
    assert terms["critic_patch"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms["segmentor_patch"].item() == pytest.approx(descended.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["mse", "dice"])
def test_teacher_sees_the_unchanged_image_and_the_segmentor_the_changed_one(batch, unlabeled, kind):
    settings = {"adversarial_weight": 0.0, "consistency_weight": 0.5, "consistency_loss": kind, "ema_decay": 0.9}
    trainer = make_unlabeled([batch], unlabeled, strong_change=lambda x: 1 - x, **settings)
    segmentor, teacher, u = copy.deepcopy(trainer.network), copy.deepcopy(trainer.network), unlabeled[0]["image"]
    trainer.run()
    logits = segmentor.train()(torch.cat([batch["image"], 1 - u]))
    with torch.no_grad():
        taught = teacher.eval()(u).sigmoid()
    expected = ConsistencyLoss(kind)(logits[3:].sigmoid(), taught)
    (DICE(logits[:3], batch["label"]) + 0.5 * expected).backward()
    torch.optim.SGD(segmentor.parameters(), lr=0.1).step()
    terms = trainer.state.output["terms"]
    assert list(terms) == ["weight_consistency", "supervised", "consistency"]
    assert terms["consistency"].item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(trainer.network.parameters(), segmentor.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert all(p.grad is None for p in trainer.averaged.parameters()), "nothing reaches the teacher"


def test_the_critic_sees_the_unchanged_image(batch, unlabeled):
    settings = {"adversarial_weight": 0.0, "consistency_weight": 0.5, "ema_decay": 0.9, "unpaired_weight": 0.1}
    trainer = make_unlabeled([batch], unlabeled, strong_change=lambda x: x + 7, **settings)
    seen = []
    trainer.critic.register_forward_pre_hook(lambda critic, inputs: seen.append(inputs[0]))
    trainer.run()
    expected = [unlabeled[0]["image"], batch["image"], unlabeled[0]["image"]]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


@pytest.mark.parametrize("term", ["unpaired_weight", "patch_weight"])
def test_each_step_changes_its_own_network(batch, unlabeled, term):
    critic = {"norm": False, "patch_score": True}
    for held in ("optimizer", "critic_optimizer"):
        trainer = make_unlabeled([batch], unlabeled, critic=critic, adversarial_weight=0.0, **{term: 1.0})
        getattr(trainer, held).param_groups[0]["lr"] = 0.0
        before = copy.deepcopy(trainer.network), copy.deepcopy(trainer.critic)
        trainer.run()
        for network, old, fixed in zip(
            (trainer.network, trainer.critic), before, (held == "optimizer", held != "optimizer"), strict=True
        ):
            same = all(torch.equal(a, b) for a, b in zip(network.parameters(), old.parameters(), strict=True))
            assert same == fixed


def test_the_terms_of_the_critic_begin_late_and_rise(batch, unlabeled):
    settings = {"adversarial_weight": 0.0, "unpaired_weight": 0.4, "consistency_weight": 2.0, "ema_decay": 0.9}
    schedule = {"unlabeled_critic_start": 3, "unlabeled_critic_ramp": 2, "consistency_ramp": 4}
    trainer = make_unlabeled([batch] * 2, unlabeled, max_epochs=5, **settings, **schedule)
    found = []

    def look(engine):
        terms = engine.state.output["terms"]
        found.append(
            [terms[f"weight_{k}"].item() if f"weight_{k}" in terms else None for k in ("consistency", "unpaired")]
        )

    trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
    trainer.run()
    times = [i / 2 for i in range(10)]  # epochs before each iteration
    teacher = [2 * math.exp(-5 * (1 - min(t / 4, 1)) ** 2) for t in times]
    critic = [None if t < 2 else 0.4 * math.exp(-5 * (1 - min((t - 2) / 2, 1)) ** 2) for t in times]
    assert [a for a, _ in found] == pytest.approx(teacher, rel=1e-5)
    assert [b for _, b in found][:4] == critic[:4]
    assert [b for _, b in found][4:] == pytest.approx(critic[4:], rel=1e-5)


def test_balanced_weights_bring_the_gradients_to_their_ratio(batch, unlabeled):
    settings = {"adversarial_weight": 0.0, "unpaired_weight": 0.25, "balance_gradients": True, "lr": 0.0}
    trainer = make_unlabeled([batch], unlabeled, **settings)
    trainer.run()
    segmentor = trainer.network.train()
    logits = segmentor(torch.cat([batch["image"], unlabeled[0]["image"]]))
    features = trainer.critic(unlabeled[0]["image"], logits[3:].sigmoid())
    last = next(m for m in segmentor.decoder[-1].modules() if isinstance(m, torch.nn.Conv2d)).weight
    norms = [
        torch.autograd.grad(loss, last, retain_graph=True)[0].norm()
        for loss in (DICE(logits[:3], batch["label"]), trainer.unpaired.to_labelled(features))
    ]
    weight = trainer.state.output["terms"]["weight_unpaired"]
    assert weight.item() == pytest.approx((0.25 * norms[0] / norms[1]).item(), rel=1e-4)


def test_only_uniformly_drawn_samples_are_compared_with(batch, unlabeled):
    batch["uniform"] = torch.tensor([True, False, True])
    trainer = make_unlabeled([batch], unlabeled, adversarial_weight=0.0, unpaired_weight=1.0, lr=0.0)
    trainer.run()
    features = trainer.critic(batch["image"][[0, 2]], batch["label"][[0, 2]])
    expected = torch.cat([layer.mean(dim=(0, 2, 3)) for one in features for layer in one[1:]])
    torch.testing.assert_close(trainer.unpaired.labelled_means, expected.detach())


def test_without_any_uniformly_drawn_sample_an_iteration_omits_the_terms(batch, unlabeled):
    batch["uniform"] = torch.tensor([False, False, False])
    trainer = make_unlabeled([batch], unlabeled, adversarial_weight=0.0, unpaired_weight=1.0)
    trainer.run()
    assert list(trainer.state.output["terms"]) == ["supervised"]


def test_unknown_labels_change_nothing(batch, unlabeled):
    """Neither the supervised loss nor a critic may depend on what stands where the label is not known."""
    batch["mask"] = (torch.rand(3, 2, 32, 32) > 0.3).float()
    other = {**batch, "label": torch.where(batch["mask"] > 0, batch["label"], 1 - batch["label"])}
    states = []
    for given in (batch, other):
        trainer = make_unlabeled([given] * 2, unlabeled, unpaired_weight=0.5)
        trainer.run()
        states.append(state_of(trainer))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    del batch["mask"]
    trainer = make_unlabeled([batch] * 2, unlabeled, unpaired_weight=0.5)
    trainer.run()
    assert not all(torch.equal(a, b) for a, b in zip(states[0], state_of(trainer), strict=True))


def test_a_mask_of_ones_is_no_mask(batch):
    states = []
    for mask in ({}, {"mask": torch.ones(3, 2, 32, 32)}):
        trainer = make_trainer([{**batch, **mask}])
        trainer.run()
        states.append(state_of(trainer))
    for a, b in zip(*states, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_loss_that_is_not_finite_stops_and_names_the_unlabelled_case(batch, unlabeled):
    unlabeled[0]["image"][0, 0, 3, 3] = float("nan")
    trainer = make_unlabeled([batch], unlabeled, adversarial_weight=0.0, unpaired_weight=1.0)
    before = copy.deepcopy(trainer.network)
    message = r"loss term 'critic_unpaired' of the critic became nan in epoch 1, iteration 1, on a batch of a, b"
    with pytest.raises(NonFiniteLossError, match=message):
        trainer.run()
    assert all(torch.equal(a, b) for a, b in zip(trainer.network.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize("concat", [False, True])
def test_mixed_precision_follows_float32(batch, unlabeled, concat):
    weights = []
    for amp in (False, True):
        critic = {"norm": False, "patch_score": True, "input": "concat" if concat else "multiply"}
        settings = {"unpaired_weight": 0.2, "patch_weight": 0.2, "consistency_weight": 1.0, "ema_decay": 0.9}
        trainer = make_unlabeled([batch] * 3, unlabeled, critic=critic, balance_gradients=True, amp=amp, **settings)
        trainer.run()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.network.parameters()]))
    assert not torch.equal(*weights)
    assert (weights[0] - weights[1]).abs().max() < 0.02


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"unpaired_weight": 0.1, "unlabeled_data_loader": None},
            r"unpaired_weight 0\.1 with unlabeled ignore: there are no unlabelled images",
        ),
        ({"consistency_weight": 0.1}, r"consistency_weight 0\.1 with ema_decay 0: the teacher is the segmentor with"),
        ({"unpaired_weight": 0.1, "critic": {"norm": True}}, r"critic_norm true: norm layers remove the mean"),
        (
            {"patch_weight": 0.1, "balance_gradients": True, "supervised_weight": 0.0, "adversarial_weight": 1.0},
            r"patch_weight 0\.1 with balance_gradients true and supervised_weight 0: the weight is relative",
        ),
        (
            {"patch_weight": 0.1, "balance_gradients": True, "compile": "eager"},
            r"balance_gradients true and compile eager: a compiled network has no",
        ),
        ({"patch_weight": 0.1, "patch_loss": "log"}, r"patch_loss is 'log'"),
    ],
)
def test_bad_settings(batch, unlabeled, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_unlabeled([batch], unlabeled, **settings)


def test_critics_without_patch_scores(batch, unlabeled):
    trainer = make_unlabeled([batch], unlabeled, patch_weight=0.1)
    with pytest.raises(
        ConfigError, match=r"the critics have no patch scores\. Set patch_score of SegANCritics to true"
    ):
        trainer.run()


def test_unlabelled_images_of_another_size(batch):
    trainer = make_unlabeled([batch], [{"image": torch.rand(2, 1, 32, 32)}], unpaired_weight=0.1)
    with pytest.raises(DataError, match=r"unlabelled cases has images of shape \(1, 32, 32\); expected \(2, 32, 32\)"):
        trainer.run()
