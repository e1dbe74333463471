# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss

from segan_monai.errors import ConfigError
from segan_monai.losses import WeightedDiceLoss


@pytest.fixture
def example():
    """Two voxels of three classes; softmax .5 .25 .25 and .25 .5 .25; labels 1 and 2."""
    p = torch.tensor([[[0.5, 0.25], [0.25, 0.5], [0.25, 0.25]]])
    return p.log(), torch.tensor([[[1, 2]]])


def test_hand_computed(example):
    # classes 1 and 2: common .25 + .25, sums of s .75 + .5, sums of y 1 + 1
    assert WeightedDiceLoss(epsilon=0)(*example).item() == pytest.approx(1 - 2 * 0.5 / 3.25)
    # with weights 3 and 1: common .75 + .25, sums 3 (.75 + 1) + (.5 + 1)
    assert WeightedDiceLoss([3.0, 1.0], epsilon=0)(*example).item() == pytest.approx(1 - 2 * 1.0 / 6.75)
    # with the background, which is nowhere: common the same, sums .75 more
    assert WeightedDiceLoss(include_background=True, epsilon=0)(*example).item() == pytest.approx(1 - 2 * 0.5 / 4)
    assert WeightedDiceLoss(epsilon=0.75)(*example).item() == pytest.approx(1 - (0.75 + 1.0) / (0.75 + 3.25))


def test_batch_or_each_sample(example):
    logits, label = example
    empty = torch.tensor([[[9.0, 9.0], [0.0, 0.0], [0.0, 0.0]]]), torch.zeros(1, 1, 2, dtype=torch.long)
    both = torch.cat([logits, empty[0]]), torch.cat([label, empty[1]])
    single = [WeightedDiceLoss()(*pair).item() for pair in (example, empty)]
    assert WeightedDiceLoss(batch=False)(*both).item() == pytest.approx(sum(single) / 2, rel=1e-5)
    assert WeightedDiceLoss()(*both).item() == pytest.approx(single[0], abs=1e-3)


def test_one_class_is_the_usual_dice():
    torch.manual_seed(0)
    logits, label = torch.randn(2, 2, 4, 4, 4), torch.randint(0, 2, (2, 1, 4, 4, 4))
    usual = DiceLoss(
        include_background=False, softmax=True, to_onehot_y=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5
    )
    assert WeightedDiceLoss()(logits, label).item() == pytest.approx(usual(logits, label).item(), rel=1e-5)


def test_perfect_and_wrong(example):
    label = example[1]
    perfect = torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1) * 100.0
    assert WeightedDiceLoss()(perfect, label).item() == pytest.approx(0, abs=1e-6)
    assert WeightedDiceLoss()(perfect.roll(1, dims=1), label).item() > 0.6


def test_number_of_weights(example):
    with pytest.raises(ConfigError, match="3 weights for 2 included classes"):
        WeightedDiceLoss([1.0, 1.0, 1.0])(*example)


def test_inverse_weights_by_hand(example):
    logits, label = example
    twice = torch.cat([logits, logits[..., 1:]], dim=2), torch.cat([label, label[..., 1:]], dim=2)
    # class 1 has 1 voxel, class 2 has 2: common .25 and .25 + .25, sums of s 1.25 and .75, of y 1 and 2
    expected = 1 - 2 * (0.25 + 0.5 / 2) / ((1.25 + 1) + (0.75 + 2) / 2)
    assert WeightedDiceLoss("inverse", epsilon=0)(*twice).item() == pytest.approx(expected)
    # of one sample without class 2, only class 1 counts
    alone = logits[..., :1], label[..., :1]
    assert WeightedDiceLoss("inverse", epsilon=0)(*alone).item() == pytest.approx(1 - 2 * 0.25 / 1.25)
    assert WeightedDiceLoss("inverse")(logits, torch.zeros_like(label)).isfinite()


def test_unknown_weights():
    with pytest.raises(ConfigError, match="class_weights is 'equal'; expected 'inverse', one number per class, or nul"):
        WeightedDiceLoss("equal")


def dice_of_a_rare_class(weights, seed):
    """Train a classifier of single voxels: 3 % CSF, grey matter and white matter, each of its own intensity."""
    torch.manual_seed(seed)
    label = torch.tensor([1] * 30 + [2] * 500 + [3] * 470)[None, None]
    x = torch.tensor([-1.8, -0.4, 0.9])[label - 1] + 0.2 * torch.randn(label.shape)
    classifier = torch.nn.Sequential(torch.nn.Conv1d(1, 16, 1), torch.nn.Tanh(), torch.nn.Conv1d(16, 4, 1))
    optimizer = torch.optim.Adam(classifier.parameters(), lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        WeightedDiceLoss(weights)(classifier(x), label).backward()
        optimizer.step()
    found, true = classifier(x).argmax(1) == 1, label[0] == 1
    return (2 * (found & true).sum() / (found.sum() + true.sum())).item()


def test_a_rare_class_collapses_with_equal_weights_alone():
    assert [dice_of_a_rare_class(None, seed) for seed in range(3)] == [0, 0, 0]
    assert min(dice_of_a_rare_class("inverse", seed) for seed in range(3)) > 0.95
