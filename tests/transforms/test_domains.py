# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandAdjustContrastd, RandBiasFieldd, ScaleIntensityd, Spacingd

from segan_monai.errors import ConfigError, DataError
from segan_monai.transforms import DomainIndexd, ForDomaind


def test_names_become_numbers():
    assert DomainIndexd("domain", ["a", "b"])({"domain": "b"})["domain"] == 1
    assert DomainIndexd("domain", ["all"])({})["domain"] == 0


@pytest.mark.parametrize("case", [{"case": "x"}, {"case": "x", "domain": "c"}])
def test_unknown_domain(case):
    with pytest.raises(DataError, match=r"case x has domain (None|'c'); expected one of a, b"):
        DomainIndexd("domain", ["a", "b"])(case)


@pytest.fixture
def case():
    torch.manual_seed(0)
    image = MetaTensor(torch.rand(1, 8, 9, 10), affine=torch.diag(torch.tensor([2.0, 2, 3, 1])))
    return {"case": "p1", "domain": "b", "image": image}


def simulation(seed=0):
    random = [RandAdjustContrastd("image", prob=1.0, gamma=(0.5, 2.0)), RandBiasFieldd("image", prob=1.0)]
    return ForDomaind("image", "b", Compose([ScaleIntensityd("image", minv=1.0, maxv=0.0), *random]), seed=seed)


def test_the_same_for_a_case_each_time_and_another_for_another(case):
    first, again = simulation()(case), simulation()
    again({**case, "case": "p2"})
    again = again(case)
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(simulation()({**case, "case": "p2"})["image"], first["image"])
    assert not torch.equal(simulation(seed=1)(case)["image"], first["image"])
    assert torch.equal(first["image"].affine, case["image"].affine)
    assert first["image"].applied_operations == case["image"].applied_operations


def test_contrast_is_inverted_and_the_case_given_is_not_changed(case):
    before = case["image"].clone()
    inverted = ForDomaind("image", "b", ScaleIntensityd("image", minv=1.0, maxv=0.0))(case)["image"]
    assert torch.equal(case["image"], before)
    pair = torch.stack([before.as_tensor().flatten(), inverted.as_tensor().flatten()])
    assert torch.corrcoef(pair)[0, 1] == pytest.approx(-1, abs=1e-4)


def test_other_domains_are_left_alone(case):
    case["domain"] = "a"
    assert simulation()(case)["image"] is case["image"]
    del case["domain"]
    assert simulation()(case)["image"] is case["image"]


def test_it_may_not_change_the_grid(case):
    with pytest.raises(ConfigError, match="the transform for domain b changed the grid of p1"):
        ForDomaind("image", "b", Spacingd("image", pixdim=(1, 1, 1)))(case)
