# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from segan_monai.quality_critic import KINDS, corrupted


@pytest.fixture
def masks():
    """A block of 8 x 8 voxels through four slices in the first of two regions, and a smaller one in the second."""
    found = torch.zeros(6, 2, 32, 32)
    found[1:5, 0, 10:18, 12:20] = 1
    found[2:4, 1, 20:24, 4:8] = 1
    return found


def corrupt(masks, kind, seed=0, other=None):
    return corrupted(masks, kind, masks if other is None else other, np.random.RandomState(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_stay_masks_and_the_original_is_kept(masks, kind):
    before = masks.clone()
    for seed in range(10):
        found = corrupt(masks, kind, seed, torch.rand(3, 2, 32, 32))
        assert found.shape == masks.shape
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.equal(masks, before)


def test_growing_and_shrinking(masks):
    grown, shrunk = corrupt(masks, "dilation"), corrupt(masks, "erosion")
    assert bool((grown >= masks).all())
    assert bool((shrunk <= masks).all())
    side = int(grown[2, 0].amax(0).sum())  # of 8 voxels and the same number of steps on both sides
    assert side in (10, 12, 14, 16)
    assert int(grown[2, 0].sum()) == side**2
    assert float(grown[0].sum()) == 0, "in the plane alone"


def test_zeros_empty_one_region_or_all(masks):
    volumes = {tuple(corrupt(masks, "zeros", seed).sum((0, 2, 3)).tolist()) for seed in range(20)}
    assert volumes == {(0.0, 0.0), (0.0, 32.0), (256.0, 0.0)}


def test_a_jigsaw_moves_pieces_of_the_plane(masks):
    found = [corrupt(masks, "jigsaw", seed) for seed in range(5)]
    assert all(float(one.sum()) == float(masks.sum()) for one in found)
    assert not all(torch.equal(one, masks) for one in found)


def test_a_shift_moves_all_regions_alike():
    masks = torch.zeros(8, 2, 32, 32)
    masks[4, :, 16, 16] = 1
    found = corrupt(masks, "shift", 3)
    assert torch.equal(found[:, 0], found[:, 1])
    where = found[:, 0].nonzero()[0] - torch.tensor([4, 16, 16])
    assert 0 < int(where.abs().max()) <= 8
    assert abs(int(where[0])) <= 1


def test_a_box_empties_or_fills(masks):
    found = [corrupt(masks, "box", seed) for seed in range(20)]
    assert any(float(one.sum()) < float(masks.sum()) for one in found)
    assert any(float(one.sum()) > float(masks.sum()) for one in found)


def test_the_mask_of_another_patient_has_the_size_of_this_one(masks):
    other = torch.zeros(3, 2, 64, 64)
    other[1] = 1
    found = corrupt(masks, "other", other=other)
    assert found[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 0, 0]


def test_an_unknown_kind_is_refused(masks):
    with pytest.raises(ValueError, match="kind 'noise'; expected one of box, jigsaw"):
        corrupt(masks, "noise")
