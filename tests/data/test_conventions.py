# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.data.conventions import LABEL_CONVENTIONS, modality_name, number_of_regions, resolve_regions
from segan_monai.errors import ConfigError
from segan_monai.transforms import regions_to_label_map


def own_values(convention):
    """The label value that each region gets in a label map of the data set's own convention."""
    only_one_region = torch.eye(3).view(3, 1, 3)
    return tuple(regions_to_label_map(only_one_region, convention.regions, "dataset").flatten().tolist())


@pytest.mark.parametrize(
    ("name", "whole", "core", "enhancing", "merged"),
    [
        ("brats2015", [1, 2, 3, 4], [1, 3, 4], [4], (2, 1, 4)),
        ("brats2021", [1, 2, 4], [1, 4], [4], (2, 1, 4)),
        ("brats2023", [1, 2, 3], [1, 3], [3], (2, 1, 3)),
        ("msd_brain_tumour", [1, 2, 3], [2, 3], [3], (1, 2, 3)),
    ],
)
def test_regions_of_each_convention(name, whole, core, enhancing, merged):
    regions = resolve_regions(name)
    assert list(regions.items()) == [
        ("whole_tumour", whole),
        ("tumour_core", core),
        ("enhancing_tumour", enhancing),
    ]
    assert own_values(LABEL_CONVENTIONS[name]) == merged


@pytest.mark.parametrize("convention", LABEL_CONVENTIONS.values(), ids=lambda convention: convention.name)
def test_merged_values_mean_what_the_region_adds(convention):
    whole, core, enhancing = (set(values) for values in convention.regions.values())
    merged = own_values(convention)
    for value, added in zip(merged, (whole - core, core - enhancing, enhancing), strict=True):
        assert value in added
    assert "oedema" in convention.labels[merged[0]]


def test_auto_takes_the_convention_of_the_cases():
    cases = [{"case": "a", "convention": "brats2023"}, {"case": "b", "convention": "brats2023"}]
    assert resolve_regions("auto", cases) == resolve_regions("brats2023")


@pytest.mark.parametrize(
    ("cases", "found"),
    [
        ([], "no cases"),
        ([{"case": "a"}], "unknown"),
        ([{"convention": "brats2015"}, {"convention": "brats2021"}], "brats2015, brats2021"),
        ([{"convention": "brats2015"}, {}], "brats2015, unknown"),
    ],
)
def test_auto_without_one_convention(cases, found):
    with pytest.raises(ConfigError, match=rf"found: {found}\. .*--regions.*brats2015, brats2021, brats2023, msd_brain"):
        resolve_regions("auto", cases)


def test_own_regions_keep_their_order():
    assert list(resolve_regions({"posterior": (2,), "anterior": [1]}).items()) == [
        ("posterior", [2]),
        ("anterior", [1]),
    ]


@pytest.mark.parametrize("values", [[], [0], [-1], [1.0], [True], "12", 0])
def test_own_regions_of_bad_values(values):
    with pytest.raises(ConfigError, match="region 'lesion' needs one or more positive integer label values"):
        resolve_regions({"lesion": values})


def test_no_regions():
    with pytest.raises(ConfigError, match="at least one region"):
        resolve_regions({})


def test_number_of_regions():
    assert [number_of_regions(regions) for regions in ("auto", *LABEL_CONVENTIONS)] == [3] * 5
    assert number_of_regions({"anterior": [1], "posterior": [2]}) == 2
    with pytest.raises(ConfigError, match="unknown label convention regions='brats1999'"):
        number_of_regions("brats1999")


def test_unknown_convention():
    with pytest.raises(ConfigError, match=r"unknown label convention regions='brats'.*brats2021"):
        resolve_regions("brats")


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (("t1c", "T1gd", "t1ce", "MR_T1c"), "t1c"),
        (("t2", "T2w", "MR_T2"), "t2"),
        (("FLAIR", "t2f", "MR_Flair"), "flair"),
        (("T1", "t1n", "T1w"), "t1"),
        (("CT",), "ct"),
    ],
)
def test_synonyms_of_modalities(names, common):
    assert {modality_name(name) for name in names} == {common}
