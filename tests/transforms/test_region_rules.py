# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segan_monai.errors import ConfigError
from segan_monai.transforms import RegionRulesd, regions_to_label_map
from segan_monai.transforms.region_rules import RegionRule, region_mask

DIAGONAL = np.array([[0.9, 0, 0, 0], [0, 0.45, 0, 0.6], [0, 0, 0, 0.6]])[..., None]  # two components of two voxels


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (RegionRule(), [0.9, 0.6, 0.6]),
        (RegionRule(threshold=0.6), [0.9, 0.6, 0.6]),
        (RegionRule(threshold=0.4), [0.9, 0.45, 0.6, 0.6]),
        (RegionRule(smallest_fraction=0.5), [0.9, 0.6, 0.6]),
        (RegionRule(smallest_fraction=0.6), [0.6, 0.6]),
        (RegionRule(threshold=0.4, smallest_fraction=1.0), [0.9, 0.45, 0.6, 0.6]),
        (RegionRule(smallest_voxels=2), [0.6, 0.6]),
        (RegionRule(smallest_voxels=3), []),
    ],
)
def test_what_a_rule_keeps(rule, kept):
    assert DIAGONAL[region_mask(DIAGONAL, rule)].tolist() == kept


def test_holes_are_filled_before_components_are_counted():
    probability = np.zeros((7, 7, 7))
    probability[1:6, 1:6, 1:6] = 0.9
    probability[2:5, 2:5, 2:5] = 0.1  # a shell of 98 voxels around a cavity of 27
    probability[3, 3, 3] = 0.8  # an island in the cavity
    assert region_mask(probability, RegionRule()).sum() == 99
    filled = RegionRule(fill_holes=True)
    assert region_mask(probability, filled).sum() == 125
    assert region_mask(probability, filled._replace(smallest_voxels=100)).sum() == 125
    assert region_mask(probability, RegionRule(smallest_voxels=99)).sum() == 0
    probability[3, 3, 5] = 0.1  # the cavity is open
    assert region_mask(probability, filled).sum() == 98
    assert region_mask(probability[:, :, 2], filled).sum() == 25, "of a photograph, in its plane"
    for slices in (probability[:, :, 2:3], probability[:, 2:3], probability[2:3]):
        assert region_mask(slices, filled).sum() == 25, "of a single slice too"


def test_the_largest_component_of_an_empty_region_is_none():
    assert not region_mask(np.zeros((3, 3, 3)), RegionRule(smallest_fraction=1.0)).any()


def test_each_region_has_its_rule_and_the_metadata_stay():
    affine = torch.diag(torch.tensor([2.0, 2, 3, 1], dtype=torch.float64))
    maps = MetaTensor(torch.from_numpy(np.stack([DIAGONAL, DIAGONAL])).float(), affine=affine)
    rules = {"core": {"threshold": 0.4}}
    changed = RegionRulesd("pred", ["tumour", "core"], rules)({"pred": maps})["pred"]
    assert torch.equal(changed.affine, affine)
    assert changed[0].unique().tolist() == pytest.approx([0, 0.8, 0.95])
    assert changed[1, 1, 1].item() == pytest.approx(0.725), "so that the usual threshold keeps it"
    merged = regions_to_label_map(changed, {"tumour": [1, 2], "core": [2]}, "consecutive")
    assert merged[0, 1, 1].item() == 2
    assert torch.equal(maps[0], torch.from_numpy(DIAGONAL).float()), "the input is not changed"


def test_of_two_exclusive_regions_below_a_half_the_more_probable_wins():
    maps = torch.tensor([0.42, 0.48, 0.3]).reshape(3, 1, 1, 1)
    rules = {"a": {"threshold": 0.4}, "b": {"threshold": 0.4}}
    changed = RegionRulesd("pred", ["a", "b", "c"], rules)({"pred": maps})["pred"]
    assert regions_to_label_map(changed, {"a": [1], "b": [2], "c": [3]}).item() == 2


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"oedema": {}}, "region_rules names 'oedema'; expected names of regions: tumour"),
        ({"tumour": {"theshold": 0.5}}, "expected numbers under threshold, smallest_fraction, smallest_voxels"),
        ({"tumour": {"threshold": "0.5"}}, "expected numbers under threshold"),
        ({"tumour": {"fill_holes": 1}}, "true or false under fill_holes"),
        ({"tumour": {"threshold": True}}, "expected numbers under threshold"),
        ({"tumour": 0.5}, "region_rules of 'tumour' is 0.5; expected numbers"),
        ({"tumour": {"threshold": 1.0}}, "expected a threshold above 0 and below 1"),
        ({"tumour": {"smallest_fraction": 1.1}}, "a smallest_fraction from 0 to 1"),
        ({"tumour": {"smallest_voxels": -1}}, "smallest_voxels of at least 0"),
    ],
)
def test_wrong_rules(rules, message):
    with pytest.raises(ConfigError, match=message):
        RegionRulesd("pred", ["tumour"], rules)
