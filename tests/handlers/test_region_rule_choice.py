# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from segan_monai.errors import ConfigError, DataError
from segan_monai.handlers import RegionRuleChoice
from segan_monai.handlers.region_rule_choice import CANDIDATES, best_candidate, dice_of_candidates
from segan_monai.metrics.overlap import overlap_metrics
from segan_monai.trained import cases_of_region_rules, read_trained_settings
from segan_monai.transforms.region_rules import RegionRule, region_mask

REGIONS = {"tumour": [1, 2], "core": [2]}


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "model.pt"
    torch.save({}, file)
    file.with_suffix(".json").write_text(json.dumps({"settings": {"neighbours": 1}, "bundle": "b"}), encoding="utf-8")
    return file


def case(number, speckle=True):
    """A tumour of 5 x 5 x 5 voxels found exactly but for a false component of 2 x 2 x 2; its core is found exactly."""
    label = torch.zeros(1, 16, 16, 8)
    label[0, 2:7, 2:7, 2:7] = 1
    label[0, 4, 4, 4] = 2
    found = torch.stack([label[0] > 0, label[0] == 2]).float() * 0.9
    if speckle:
        found[0, 12:14, 12:14, 4:6] = 0.9
    return {"case": f"c{number}", "label": label}, {"probabilities": found}


def choose(weights, cases, ignore_label=None):
    def evaluate(engine, index):
        batch, output = cases[index]
        engine.state.batch = [batch]
        return [output]

    engine = Engine(evaluate)
    RegionRuleChoice(weights, REGIONS, "validation", ignore_label).attach(engine)
    engine.run(range(len(cases)))
    return json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))


def test_speckles_are_removed_by_a_rule_and_the_exact_region_has_none(weights):
    record = choose(weights, [case(number) for number in range(4)])
    assert record["settings"] == {"neighbours": 1, "region_rules": {"tumour": {"smallest_fraction": 0.1}}}
    assert record["bundle"] == "b"
    before = round(2 * 125 / (125 + 133), 4)
    assert record["region_rules_chosen"]["regions"] == {
        "tumour": {"dice_before": before, "dice_after": 1.0},
        "core": {"dice_before": 1.0, "dice_after": 1.0},
    }
    assert cases_of_region_rules(weights) == ["c0", "c1", "c2", "c3"]
    assert read_trained_settings(weights)["region_rules"] == {"tumour": {"smallest_fraction": 0.1}}


def test_holes_are_filled_where_that_helps(weights):
    cases = [case(number, speckle=False) for number in range(3)]
    for batch, output in cases:
        batch["label"][0, 4, 4, 4] = 1
        output["probabilities"][:, 4, 4, 4] = 0.1
    record = choose(weights, cases)
    assert record["settings"]["region_rules"] == {"tumour": {"fill_holes": True}}
    before = round(2 * 124 / (125 + 124), 4)
    assert record["region_rules_chosen"]["regions"]["tumour"] == {"dice_before": before, "dice_after": 1.0}


def test_where_no_rule_helps_none_is_written(weights):
    assert choose(weights, [case(number, speckle=False) for number in range(3)])["settings"]["region_rules"] is None


def test_one_case_alone_does_not_decide(weights):
    cases = [case(0), *(case(number, speckle=False) for number in range(1, 4))]
    assert choose(weights, cases)["settings"]["region_rules"] is None


def test_dice_of_every_candidate_is_that_of_its_mask():
    generator = np.random.default_rng(0)
    probability, reference = generator.random((12, 12, 6)) ** 2, generator.random((12, 12, 6)) > 0.6
    known = np.ones_like(reference)
    known[:4] = False
    expected = [overlap_metrics(region_mask(probability, rule) & known, reference & known) for rule in CANDIDATES]
    found = dice_of_candidates(probability, reference, known)
    np.testing.assert_allclose(found, [metrics["dice"] for metrics in expected])
    empty = np.zeros((4, 4, 4))
    assert dice_of_candidates(empty, empty > 0, empty == 0).tolist() == [1.0] * len(CANDIDATES)
    assert not dice_of_candidates(empty, empty == 0, empty == 0).any()
    assert np.isnan(dice_of_candidates(empty, empty == 0, empty > 0)).all()


def test_unknown_voxels_and_regions_decide_nothing(weights):
    cases = [case(number) for number in range(4)]
    for batch, _ in cases:
        batch["label"][0, 12:14, 12:14, 4:6] = 254
    record = choose(weights, cases, ignore_label=254)
    assert record["settings"]["region_rules"] is None
    assert record["region_rules_chosen"]["regions"]["tumour"] == {"dice_before": 1.0, "dice_after": 1.0}

    cases = [case(number) for number in range(4)]
    for batch, _ in cases[1:]:
        batch["labelled_regions"] = ["core"]
    record = choose(weights, cases)
    assert record["settings"]["region_rules"] is None, "one case alone is labelled for the tumour"
    for batch, _ in cases:
        batch["labelled_regions"] = ["core"]
    assert list(choose(weights, cases)["region_rules_chosen"]["regions"]) == ["core"]


def test_the_first_of_equally_good_rules_is_taken():
    dice = np.full((3, len(CANDIDATES)), 0.5)
    dice[:, 3:] = 0.6
    assert best_candidate(dice) == 3
    dice[:, 3:] = 0.501
    assert best_candidate(dice) == 0, "too little"
    assert CANDIDATES[0] == RegionRule()


def test_messages(weights, tmp_path):
    with pytest.raises(ConfigError, match=r"subset is held_out; expected validation.*--subset validation"):
        RegionRuleChoice(weights, REGIONS, "held_out")
    with pytest.raises(ConfigError, match="there are 2 weights; expected one network"):
        RegionRuleChoice([weights, weights], REGIONS, "validation")
    with pytest.raises(ConfigError, match=r"other\.json does not exist, and receives the rules"):
        RegionRuleChoice(tmp_path / "other.pt", REGIONS, "validation")
    with pytest.raises(DataError, match="no case could be evaluated, so no rule is chosen"):
        RegionRuleChoice(weights, REGIONS, "validation").finish()
