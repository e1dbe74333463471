# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from segan_monai.data import LABEL_CONVENTIONS, resolve_regions
from segan_monai.errors import ConfigError, DataError
from segan_monai.transforms import (
    LabelToRegionsd,
    RegionsToLabelMapd,
    label_to_regions,
    merged_regions,
    regions_to_label_map,
)

NESTED = {"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}
EXCLUSIVE = {"anterior": [1], "posterior": [2]}


def label(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, -1)


def test_label_to_regions_by_hand():
    regions = label_to_regions(label(0, 1, 2, 4), NESTED)
    assert regions.dtype == torch.uint8
    assert regions[:, 0].tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


def test_dictionary_version_keeps_geometry_and_dimensions():
    volume = MetaTensor(torch.ones(1, 2, 3, 4), affine=torch.diag(torch.tensor([2.0, 3, 4, 1])), meta={"a": 1})
    case = LabelToRegionsd("label", EXCLUSIVE)({"label": volume, "case": "x"})
    assert case["label"].shape == (2, 2, 3, 4)
    assert torch.equal(case["label"].affine, volume.affine)
    assert case["label"].meta["a"] == 1
    assert case["case"] == "x"
    assert volume.unique().tolist() == [1]


def test_value_outside_the_convention():
    volume = MetaTensor(label(0, 3, 3, 4, 9), meta={"source_files": "/data/p1_seg.nii.gz"})
    message = r"p1_seg\.nii\.gz: found label values 3 \(2 voxels\), 9 \(1 voxels\) .* Allowed are 0, 1, 2, 4.*--regions"
    with pytest.raises(DataError, match=message):
        label_to_regions(volume, NESTED)


@pytest.mark.parametrize("value", [-1, 0.5, 1e9])
def test_impossible_values_are_not_rounded(value):
    with pytest.raises(DataError, match="the given label map: found label values"):
        label_to_regions(label(0, value), NESTED)


def test_label_of_several_channels():
    with pytest.raises(DataError, match=r"expected a label map of one channel, found shape \(2, 1, 1\)"):
        label_to_regions(torch.zeros(2, 1, 1), NESTED)


@pytest.mark.parametrize("convention", LABEL_CONVENTIONS.values(), ids=lambda convention: convention.name)
def test_there_and_back_in_the_data_sets_own_values(convention):
    regions = resolve_regions(convention.name)
    values = label(0, *convention.labels)
    back = regions_to_label_map(label_to_regions(values, regions).float(), regions, "dataset")
    expected = values.clone()
    if convention.name == "brats2015":
        expected[expected == 3] = 1  # necrosis and non-enhancing core make the same regions
    assert back.dtype == torch.uint8
    assert torch.equal(back.long(), expected.long())


def test_nested_regions_are_painted_inwards():
    probabilities = torch.tensor([[0.4, 0.5, 0.9, 0.9, 0.1], [0.4, 0.4, 0.6, 0.7, 0.1], [0.4, 0.4, 0.2, 0.5, 0.5]])
    merged = regions_to_label_map(probabilities.view(3, 1, 5), NESTED)
    assert merged.flatten().tolist() == [0, 1, 2, 3, 3]  # the last: enhancing, though in no whole tumour


def test_order_of_channels_does_not_hide_inner_regions():
    probabilities = torch.ones(3, 1, 1)
    order = {name: NESTED[name] for name in ("enhancing", "core", "whole")}
    assert regions_to_label_map(probabilities, order).item() == 1
    assert merged_regions(order) == {"enhancing": [1], "core": [1, 2], "whole": [1, 2, 3]}


def test_exclusive_regions_compete():
    probabilities = torch.tensor([[0.6, 0.7, 0.4, 0.5], [0.9, 0.6, 0.3, 0.1]]).view(2, 1, 4)
    assert regions_to_label_map(probabilities, EXCLUSIVE).flatten().tolist() == [2, 1, 0, 1]
    assert regions_to_label_map(probabilities, EXCLUSIVE, [10, 20], 0.65).flatten().tolist() == [20, 10, 0, 0]


def test_partly_overlapping_regions_are_painted_in_order():
    regions = {"a": [1, 2], "b": [2, 3]}
    assert regions_to_label_map(torch.ones(2, 1, 1), regions).item() == 2
    assert merged_regions(regions) == {"a": [1], "b": [2]}


def test_merged_regions():
    assert merged_regions(NESTED) == {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    assert merged_regions(NESTED, [2, 1, 4]) == {"whole": [2, 1, 4], "core": [1, 4], "enhancing": [4]}
    assert merged_regions(EXCLUSIVE) == {"anterior": [1], "posterior": [2]}


@pytest.mark.parametrize("regions", [NESTED, EXCLUSIVE, {"lesion": [1, 2]}])
def test_merged_regions_describe_the_merged_map(regions):
    allowed = {value for values in regions.values() for value in values}
    maps = label_to_regions(label(0, *sorted(allowed)), regions)
    merged = regions_to_label_map(maps.float(), regions)
    assert torch.equal(label_to_regions(merged, merged_regions(regions)), maps)


def test_label_map_keeps_metadata():
    probabilities = MetaTensor(torch.rand(3, 2, 2, 2), affine=2 * torch.eye(4), meta={"filename_or_obj": "p1.nii.gz"})
    merged = RegionsToLabelMapd("pred", NESTED)({"pred": probabilities})["pred"]
    assert merged.shape == (1, 2, 2, 2)
    assert torch.equal(merged.affine, probabilities.affine)
    assert merged.meta["filename_or_obj"] == "p1.nii.gz"


@pytest.mark.parametrize("values", [[1, 2], [1, 1, 2], [0, 1, 2], [1, 2, 256], "own", [1.0, 2.0, 3.0]])
def test_bad_values(values):
    with pytest.raises(ConfigError, match=r"for 3 regions .* one integer from 1 to 255 per region"):
        RegionsToLabelMapd("pred", NESTED, values)


def test_wrong_number_of_channels():
    with pytest.raises(ConfigError, match=r"2 channels of shape \(2, 1, 1\) for 3 regions \(whole, core, enhancing\)"):
        regions_to_label_map(torch.ones(2, 1, 1), NESTED)
