# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from segan_monai.errors import ConfigError, DataError
from segan_monai.transforms import PatchFitsd, RandTissuePatchesd, TissueCentresd, tissue_centres


@pytest.fixture
def label():
    """Tissue 1 in one half, tissue 2 in the other, within a border."""
    label = torch.zeros(1, 40, 40, 40)
    label[:, 4:20, 4:36, 4:36] = 1
    label[:, 20:36, 4:36, 4:36] = 2
    return label


def test_centres_lie_on_the_grid_and_on_tissue(label):
    centres = tissue_centres(label, (8, 8, 8))
    assert centres.min() == 8
    assert (centres % 8 == 0).all()
    assert len(centres) == 4**3  # 8, 16, 24, 32
    assert (label[0][tuple(centres.T)] > 0).all()


def test_little_tissue_and_none():
    label = torch.zeros(1, 20, 20, 20)
    assert tissue_centres(label, (8, 8, 8)).tolist() == [[10, 10, 10]]
    label[0, 3, 5, 9] = label[0, 0, 0, 1] = 1
    assert tissue_centres(label, (8, 8, 8)).tolist() == [[3, 5, 9]]


def test_parts_share_out_the_centres_of_each_class(label):
    parts = {name: tissue_centres(label, (4, 4, 4), name, seed=3) for name in ("training", "validation", "test")}
    every = tissue_centres(label, (4, 4, 4))
    together = np.concatenate(list(parts.values()))
    assert sorted(map(tuple, together)) == sorted(map(tuple, every))
    for value in (1, 2):
        counts = [int((label[0][tuple(part.T)] == value).sum()) for part in parts.values()]
        shares = np.array(counts) / sum(counts)
        np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.01)
    again = tissue_centres(label, (4, 4, 4), "test", seed=3)
    assert np.array_equal(again, parts["test"])
    assert not np.array_equal(tissue_centres(label, (4, 4, 4), "test", seed=4), parts["test"])


def test_patches_are_of_one_size_around_the_centres(label):
    case = {"case": "p", "image": torch.arange(40.0**3).reshape(1, 40, 40, 40), "label": label, "domain": 1}
    case = TissueCentresd("label", stride=(12, 12, 12))(case)
    patches = RandTissuePatchesd(["image", "label"], "label", (16, 16, 16), num_samples=None)(case)
    assert len(patches) == len(case["label_centres"]) == 8
    assert list(patches[0]) == ["image", "label", "case", "domain"]
    # the centre (12, 12, 12) is the voxel 8 of a patch of 16 that begins at 4
    assert case["label_centres"][0].tolist() == [12, 12, 12]
    assert torch.equal(patches[0]["image"], case["image"][:, 4:20, 4:20, 4:20])
    large = RandTissuePatchesd(["image", "label"], "label", (36, 36, 36), num_samples=None)(case)
    assert {tuple(p["image"].shape) for p in large} == {(1, 36, 36, 36)}, "moved inwards"


def test_the_draw_is_seeded(label):
    case = TissueCentresd("label")({"case": "p", "image": torch.rand(1, 40, 40, 40), "label": label})
    draw = RandTissuePatchesd(["image", "label"], "label", (16, 16, 16), num_samples=3)
    first, second = (draw.set_random_state(seed=5)(case) for _ in range(2))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    third = draw(case)
    assert not all(torch.equal(a["image"], b["image"]) for a, b in zip(first, third, strict=True))


def test_a_patch_larger_than_the_image():
    with pytest.raises(
        DataError,
        match=r"case p: the image has \(30, 40, 24\) .* \(32, 32, 32\)\. Pass --pad_small_images .*\[24, 32, 24\]",
    ):
        PatchFitsd("image", (32, 32, 32))({"case": "p", "image": torch.zeros(1, 30, 40, 24)})
    PatchFitsd("image", (32, 32, 24))({"case": "p", "image": torch.zeros(1, 32, 40, 24)})


def test_bad_settings():
    with pytest.raises(ConfigError, match="part is 'all'"):
        TissueCentresd("label", part="all")
    with pytest.raises(ConfigError, match="num_samples is 0"):
        RandTissuePatchesd(["image"], "label", (8, 8, 8), num_samples=0)
