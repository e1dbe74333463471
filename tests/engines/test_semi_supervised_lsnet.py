# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""L-SNet with a mean teacher: terms by hand, who gets a gradient, and nothing without a weight."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.losses import DiceFocalLoss

from segan_monai.engines import LSNetTrainer, SemiSupervisedLSNetTrainer
from segan_monai.errors import ConfigError, DataError
from segan_monai.losses import CoarseSegmentationLoss, ConsistencyLoss, LocalizationLoss
from segan_monai.networks import CoarseLocalizer, LocalizationNet, LSNet, ResNetSegmentor
from segan_monai.networks.roi_recalibration import sample_affine
from segan_monai.networks.true_boxes import boxes_of_objects, mean_box_iou

LOSS = DiceFocalLoss(sigmoid=True, squared_pred=True, batch=True, lambda_dice=0.2)


@pytest.fixture
def batch():
    label = torch.zeros(3, 1, 64, 64)
    label[1, 0, 10:26, 20:44] = label[2, 0, 30:50, 8:40] = 1
    generator = torch.Generator().manual_seed(1)
    return {"image": label + 0.1 * torch.rand(label.shape, generator=generator), "label": label}


@pytest.fixture
def unlabeled():
    return [{"image": torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(2)), "case": ["a", "b"]}]


def make(batches, kind=SemiSupervisedLSNetTrainer, coarse=False, lr=0.1, **settings):
    torch.manual_seed(0)
    localizer = CoarseLocalizer(ResNetSegmentor(1, 1, 18, 4)) if coarse else LocalizationNet(1, 1, base_channels=4)
    network = LSNet(localizer, ResNetSegmentor(1, 1, 18, 4), 1, margin=2, hard_crop=coarse)
    return kind(
        device="cpu",
        max_epochs=1,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr),
        loss_function=LOSS,
        localization_loss=CoarseSegmentationLoss(LOSS) if coarse else LocalizationLoss(LOSS, sigma=4.0),
        **settings,
    )


def with_teacher(batches, unlabeled, **settings):
    given = {"consistency_weight": 0.5, "ema_decay": 0.9, "unlabeled_data_loader": unlabeled}
    return make(batches, **{**given, **settings})


def test_without_a_weight_it_is_the_trainer_of_lsnet_bit_for_bit(batch, unlabeled):
    states = []
    for trainer in (make([batch] * 2, LSNetTrainer), make([batch] * 2, unlabeled_data_loader=unlabeled)):
        torch.manual_seed(5)
        trainer.run()
        states.append([*trainer.network.state_dict().values(), torch.rand(1)])
        assert list(trainer.state.output["terms"]) == ["heatmap", "box", "mask", "box_iou"]
        assert trainer.data_loader == [batch] * 2, "no unlabelled image is loaded"
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@pytest.mark.parametrize("kind", ["mse", "dice"])
def test_terms_by_hand(batch, unlabeled, kind):
    """With a learning rate of 0, both steps have the same network."""
    trainer = with_teacher([batch], unlabeled, lr=0.0, consistency_loss=kind, strong_change=lambda x: 1 - x)
    network, teacher = copy.deepcopy(trainer.network).train(), copy.deepcopy(trainer.network).eval()
    torch.manual_seed(5)
    trainer.run()

    image, u = batch["image"], unlabeled[0]["image"]
    torch.manual_seed(5)
    torch.randint(2**31, ())  # seeds the unlabelled loader
    with torch.no_grad():
        taught = teacher.localizer(u)
        rois = teacher.localizer.draw_rois(taught)
        theta = teacher.affine(rois, u.shape[2:])
        mask = teacher.segmentor(sample_affine(u, theta)).sigmoid()
        heatmap, distances = network.localizer(torch.cat([image, 1 - u]))
        own = network.localizer.draw_rois((heatmap[:3], distances[:3]))
        own_theta = network.affine(own, u.shape[2:])
        logits = network.segmentor(torch.cat([sample_affine(image, own_theta), sample_affine(1 - u, theta)]))
        expected = {
            **trainer.localization_loss((heatmap[:3], distances[:3]), batch["label"]),
            "localizer_consistency": ConsistencyLoss(kind)(heatmap[3:].sigmoid(), taught[0].sigmoid()),
            "box_iou": mean_box_iou(own, boxes_of_objects(batch["label"])),
            "weight_consistency": torch.tensor(0.5),
            "mask": LOSS(logits[:3], sample_affine(batch["label"], own_theta).round()),
            "consistency": ConsistencyLoss(kind)(logits[3:].sigmoid(), mask),
        }
    terms = trainer.state.output["terms"]
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-7), name
    total = expected["mask"] + 0.5 * expected["consistency"]
    assert trainer.state.output["loss"].item() == pytest.approx(total.item(), rel=1e-4)
    assert trainer.state.output["pred"].shape == (3, 1, 64, 64), "of labelled images only"


def test_each_network_learns_from_its_own_term_and_the_teacher_from_none(batch, unlabeled):
    gradients = []
    for weight in (0.0, 7.0):
        trainer = with_teacher([batch], unlabeled, lr=0.0, strong_change=lambda x: 1 - x)
        trainer.consistency_weight = weight
        last = (
            trainer.network.localizer.keypoint_head[-1].weight,
            next(reversed([*trainer.network.segmentor.parameters()])),
        )
        found = []
        step = trainer.optimizer.step

        def record(*args, last=last, found=found, step=step, **kwargs):
            found.append([None if weight.grad is None else weight.grad.clone() for weight in last])
            return step(*args, **kwargs)

        trainer.optimizer.step = record
        torch.manual_seed(5)
        trainer.run()
        gradients.append(found)
        assert all(p.grad is None for p in trainer.averaged.parameters())
    (first, second), (first_taught, second_taught) = gradients
    assert not torch.allclose(first[0], first_taught[0]), "heatmaps, in the first step"
    assert first[1] is first_taught[1] is None
    assert not torch.allclose(second[1], second_taught[1]), "masks, in the second"


def test_labels_that_are_known_in_part_teach_what_is_known(batch, unlabeled):
    """Nothing is known of the last image, so its label changes no term; without a mask it does."""
    found = []
    for label in (0, 1):
        for hidden in (True, False):
            data = {**batch, "label": batch["label"].clone(), "mask": torch.ones_like(batch["label"])}
            data["label"][2] *= label
            if hidden:
                data["mask"][2] = 0
            trainer = with_teacher([data], unlabeled, lr=0.0, true_box_share=None, box_jitter=0.0)
            torch.manual_seed(5)
            trainer.run()
            names = ("heatmap", "box", "mask")
            found.append([trainer.state.output["terms"][name].item() for name in names])
    assert found[0] == found[2]
    assert all(a != b for a, b in zip(found[1], found[3], strict=True))


def test_coarse_to_fine_learns_from_a_teacher_too(batch, unlabeled):
    trainer = with_teacher([batch] * 2, unlabeled, coarse=True, gradient_decay=0.0)
    before = copy.deepcopy(trainer.network)
    trainer.run()
    assert {"coarse_mask", "localizer_consistency", "consistency"} <= trainer.state.output["terms"].keys()
    changed = [not torch.equal(a, b) for a, b in zip(trainer.network.parameters(), before.parameters(), strict=True)]
    assert all(changed)


def test_mixed_precision_follows_float32(batch, unlabeled):
    losses = []
    for amp in (False, True):
        trainer = with_teacher([batch], unlabeled, amp=amp)
        torch.manual_seed(5)
        trainer.run()
        losses.append(trainer.state.output["terms"]["localizer_consistency"].item())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.01)


def test_a_teacher_needs_averaged_weights_and_images_of_one_size(batch, unlabeled):
    with pytest.raises(ConfigError, match=r"consistency_weight 0\.5 with ema_decay 0: the teacher is"):
        with_teacher([batch], unlabeled, ema_decay=0.0)
    with pytest.raises(ConfigError, match=r"consistency_weight 0\.5 with unlabeled ignore: there are no unlabelled"):
        with_teacher([batch], None)
    trainer = with_teacher([batch], [{"image": torch.rand(2, 1, 32, 32)}])
    with pytest.raises(DataError, match=r"images of shape \(1, 32, 32\); expected \(1, 64, 64\)"):
        trainer.run()
