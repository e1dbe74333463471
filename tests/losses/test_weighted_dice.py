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
