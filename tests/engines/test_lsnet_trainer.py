# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The alternating steps of L-SNet: who learns in which step, and how much gradient passes."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest
import torch
from ignite.engine import Events
from monai.losses import DiceFocalLoss

from segan_monai.engines import LSNetTrainer, NonFiniteLossError, SegmentationTrainer, decay_gradient
from segan_monai.errors import ConfigError
from segan_monai.losses import CoarseSegmentationLoss, LocalizationLoss
from segan_monai.networks import CoarseLocalizer, LocalizationNet, LSNet, ResNetSegmentor, RoIs
from segan_monai.networks.true_boxes import jittered


def batch(count=4):
    generator = torch.Generator().manual_seed(1)
    label = torch.zeros(count, 1, 64, 64)
    for index in range(1, count):  # the first slice is empty
        label[index, 0, 10 * index : 10 * index + 16, 20:44] = 1
    return {"image": label + 0.1 * torch.rand(label.shape, generator=generator), "label": label}


def loss():
    return DiceFocalLoss(sigmoid=True, squared_pred=True, batch=True, lambda_dice=0.2)


def make(decay=0.1, coarse=False, hard_crop=False, iterations=1, data=None, lr=1e-3, optimizer=torch.optim.SGD, **more):
    torch.manual_seed(0)
    segmentor = ResNetSegmentor(1, 1, 18, 4)
    localizer = CoarseLocalizer(ResNetSegmentor(1, 1, 18, 4)) if coarse else LocalizationNet(1, 1, base_channels=4)
    network = LSNet(localizer, segmentor, 1, margin=2, hard_crop=hard_crop)
    return LSNetTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[data or batch()] * iterations,
        network=network,
        optimizer=optimizer(network.parameters(), lr=lr),
        loss_function=loss(),
        localization_loss=CoarseSegmentationLoss(loss()) if coarse else LocalizationLoss(loss(), sigma=4.0),
        gradient_decay=decay,
        **more,
    )


def second_step_gradients(decay, hard_crop=False):
    """Gradient of each weight of the localizer in the second step."""
    trainer = make(decay, hard_crop=hard_crop, lr=0.0)
    gradients = []
    step = trainer.optimizer.step

    def record(*args, **kwargs):
        parameters = trainer.network.localizer.parameters()
        gradients.append([None if p.grad is None else p.grad.clone() for p in parameters])
        return step(*args, **kwargs)

    trainer.optimizer.step = record
    trainer.run()
    assert len(gradients) == 2
    return gradients[1]


def test_the_factor_scales_exactly_the_gradient_from_segmentor_to_localizer():
    full, tenth = second_step_gradients(1.0), second_step_gradients(0.1)
    norms = [0.0 if g is None else float(g.norm()) for g in full]
    assert max(norms) > 0, "gradients flow through the recalibration"
    for one, other in zip(full, tenth, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one * 0.1, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("decay", "hard_crop"), [(0.0, False), (0.1, True)])
def test_no_gradient_without_a_factor_or_through_a_hard_crop(decay, hard_crop):
    assert all(gradient is None for gradient in second_step_gradients(decay, hard_crop))


def test_only_distances_get_the_second_gradient_not_the_heatmap():
    trainer = make(1.0)
    names = [name for name, _ in trainer.network.localizer.named_parameters()]
    found = dict(zip(names, second_step_gradients(1.0), strict=True))
    assert found["keypoint_head.3.weight"] is None
    assert found["box_head.6.weight"].abs().sum() > 0


def test_decay_gradient_by_hand():
    x = torch.tensor([2.0], requires_grad=True)
    (3 * decay_gradient(x, 0.25)).backward()
    assert x.grad.item() == 0.75
    assert decay_gradient(x.detach(), 0.25).requires_grad is False


def test_terms_and_the_first_step_leave_the_segmentor_alone():
    trainer = make()
    before = [p.clone() for p in trainer.network.segmentor.parameters()]
    seen = []
    minimizing = trainer.minimizing

    @contextmanager
    def watch(phase, optimizer):
        already = set(trainer.state.output["terms"])
        with minimizing(phase, optimizer) as step:
            yield step
        moved = any(not torch.equal(a, b) for a, b in zip(before, trainer.network.segmentor.parameters(), strict=True))
        seen.append((phase, sorted(set(trainer.state.output["terms"]) - already), moved))

    trainer.minimizing = watch
    trainer.run()
    assert seen == [("localizer", ["box", "heatmap"], False), ("segmentor", ["mask"], True)]
    assert sorted(trainer.state.output["terms"]) == ["box", "box_iou", "heatmap", "mask"]


@pytest.mark.parametrize(("coarse", "amp"), [(False, False), (True, True)])
def test_it_learns(coarse, amp):
    trainer = make(coarse=coarse, hard_crop=coarse, iterations=40, lr=5e-3, optimizer=torch.optim.Adam, amp=amp)
    history = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: history.append(dict(trainer.state.output["terms"])))
    trainer.run()
    for name in history[0].keys() - {"box_iou"}:
        first, last = (sum(float(terms[name]) for terms in part) for part in (history[:5], history[-5:]))
        assert last < 0.7 * first, (name, first, last)
    found = trainer.network.eval()(batch()["image"]) > 0
    truth = batch()["label"] > 0.5
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.7
    assert not found[0].any()


def test_slices_without_objects_train_too():
    empty = {"image": torch.rand(2, 1, 64, 64), "label": torch.zeros(2, 1, 64, 64)}
    for coarse in (False, True):
        trainer = make(coarse=coarse, data=empty)
        trainer.run()
        terms = trainer.state.output["terms"]
        assert {name for name, term in terms.items() if not math.isfinite(float(term))} == {"box_iou"}


def test_bad_settings_and_values():
    with pytest.raises(ConfigError, match="gradient_decay is -1"):
        make(-1)
    with pytest.raises(
        ConfigError, match=r"true_box_share is 2, box_jitter 0\.1 and roi_jitter 0\.0; expected a share"
    ):
        make(true_box_share=2)
    with pytest.raises(ConfigError, match=r"roi_jitter -0\.5; expected a share of the epochs from 0 to 1, and jitters"):
        make(roi_jitter=-0.5)
    data = batch()
    data["image"][0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteLossError, match="of the localizer became nan"):
        make(data=data).run()


def test_the_one_stage_trainer_steps_down_its_loss():
    torch.manual_seed(0)
    network = ResNetSegmentor(1, 1, 18, 4)
    trainer = SegmentationTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch()] * 40,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=5e-3),
        loss_function=loss(),
    )
    history = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: history.append(float(trainer.state.output["loss"])))
    trainer.run()
    assert list(trainer.state.output["terms"]) == ["mask"]
    assert history[-1] < 0.5 * history[0]


def test_true_boxes_give_way_to_predicted_ones():
    trainer = make(iterations=4, true_box_share=0.5, lr=0.0)
    seen = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(trainer.true_box_probability))
    trainer.run()
    assert seen == [1.0, 0.5, 0, 0]
    assert make().true_box_probability == 0
    assert make(true_box_share=None).true_box_probability == 1


def test_the_segmentor_sees_true_objects_first():
    trainer = make(true_box_share=1.0, box_jitter=0.0, lr=0.0)
    targets = []
    inner = trainer.loss_function
    trainer.loss_function = lambda logits, target: targets.append(target) or inner(logits, target)
    trainer.run()
    (target,) = targets
    # an object of 16x24 and a margin of 2 on every side, enlarged to 64x64
    expected = 64 * 64 * (16 / 20) * (24 / 28)
    for of_image in target[1:]:
        assert float(of_image.sum()) == pytest.approx(expected, rel=0.05)
    assert not target[0].any(), "there is nothing in the first image"


def test_edges_of_predicted_boxes_move_in_proportion_to_their_size():
    torch.manual_seed(0)
    count = 4000
    distances = torch.tensor([[5.0, 15, 2, 3]]).repeat(count, 1).requires_grad_()
    zeros = torch.zeros(count, dtype=torch.long)
    moved = jittered(RoIs(zeros, zeros, torch.zeros(count, 2), distances, torch.ones(count)), 0.1).distances
    shift = (moved - distances).detach()
    assert shift.mean(0) == pytest.approx([0] * 4, abs=0.1)
    # a tenth of 20 columns and 5 rows; clipping a normal distribution at two deviations leaves .96 of its deviation
    assert (shift.std(0) / torch.tensor([2, 2, 0.5, 0.5])).tolist() == pytest.approx([0.96] * 4, abs=0.04)
    moved.sum().backward()
    assert (distances.grad == 1).all()


def test_coarse_masks_are_a_third_term_and_change_nothing_at_inference():
    torch.manual_seed(0)
    network = LocalizationNet(1, 2, base_channels=4, masks=True).eval()
    data = torch.rand(2, 1, 64, 64)
    heat, distances = network(data)
    assert (heat.shape, distances.shape) == ((2, 4, 16, 16), (2, 2, 4, 16, 16))
    label = torch.zeros(2, 2, 64, 64)
    label[:, 1, 8:24, 8:32] = 1
    own = LocalizationLoss(loss(), sigma=4.0, mask_weight=2.0)
    terms = own((heat, distances), label)
    target = torch.nn.functional.avg_pool2d(label, 4)
    assert float(terms["coarse_mask"]) == pytest.approx(2 * float(loss()(heat[:, 2:], target)))
    without = own((heat[:, :2], distances), label)
    assert {name: float(term) for name, term in without.items()} == pytest.approx(
        {name: float(terms[name]) for name in ("heatmap", "box")}
    )
    heat = heat.detach().clone()
    heat[:, 2:] = 50.0  # coarse masks are no keypoints
    network.threshold = 0.999
    assert not len(network.find_rois((heat, distances)).image)
    assert not network.fixed_rois((heat, distances))[2].any()
    assert network.draw_rois((heat, distances)).channel.max() < 2


def terms_of(data, **settings):
    """Terms of one iteration, whose RoIs lie within the image."""
    trainer = make(data=data, lr=0.0, true_box_share=None, box_jitter=0.0, **settings)
    torch.manual_seed(3)
    trainer.run()
    return {name: term.item() for name, term in trainer.state.output["terms"].items() if name != "box_iou"}


@pytest.mark.parametrize("coarse", [False, True])
def test_nothing_is_learnt_from_unknown_pixels(coarse):
    data = batch()
    data["label"][3] = 0
    data["mask"] = torch.ones_like(data["label"], dtype=torch.uint8)
    data["mask"][3] = 0
    known = terms_of(data, coarse=coarse)
    data["label"][3, 0, 20:50, 10:40] = 1
    assert terms_of(data, coarse=coarse) == known, "whatever the label says there"
    del data["mask"]
    assert all(term != known[name] for name, term in terms_of(data, coarse=coarse).items())


def test_a_label_that_is_known_everywhere_gives_the_terms_of_one_without_a_mask():
    data = batch(3)
    data["image"], data["label"] = data["image"][1:], data["label"][1:]  # true boxes with their margin are inside
    expected = terms_of(data)
    found = terms_of({**data, "mask": torch.ones_like(data["label"])})
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_one_stage_trainer_learns_from_known_pixels_only():
    terms = []
    for label_of_unknown in (0, 1):
        torch.manual_seed(0)
        network = ResNetSegmentor(1, 1, 18, 4)
        data = batch()
        data["mask"] = torch.ones_like(data["label"])
        data["mask"][..., :20] = 0
        data["label"][..., :20] = label_of_unknown
        trainer = SegmentationTrainer(
            device="cpu",
            max_epochs=1,
            train_data_loader=[data],
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
            loss_function=loss(),
        )
        trainer.run()
        terms.append(trainer.state.output["loss"].item())
    assert terms[0] == terms[1]
