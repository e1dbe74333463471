# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from segan_monai.errors import ConfigError
from segan_monai.sweep import read_space

KEYS = ["learning_rate", "base_channels", "slice_axis", "amp"]


def read(tmp_path, content):
    file = tmp_path / "space.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return read_space(file, KEYS)


def test_choices_come_back_as_they_were_written(tmp_path):
    space = read(tmp_path, {"slice_axis": {"choices": [2, [2, 1, 0]]}, "amp": {"choices": [True, False]}})
    assert space.settings({"slice_axis": "[2, 1, 0]", "amp": True}) == {"slice_axis": [2, 1, 0], "amp": True}
    assert space.settings({"slice_axis": 2, "amp": False}) == {"slice_axis": 2, "amp": False}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"space\.json is empty; expected at least one config key"),
        ({"learning_rat": {"low": 1, "high": 2}}, r"unknown key 'learning_rat'.* Did you mean learning_rate\?"),
        ({"axis": {"choices": [0, 2]}}, r"train\.json has no such key\. Did you mean slice_axis\?$"),
        ({"xyzzy": {"choices": [0, 2]}}, r"train\.json has no such key\.$"),
        ({"learning_rate": [1, 2]}, r"'learning_rate' is \[1, 2\]; expected \{\"low\": 1e-5"),
        ({"learning_rate": {"low": 2, "high": 1}}, r"'learning_rate' is .*; expected"),
        ({"learning_rate": {"low": 0, "high": 1, "log": True}}, r"'learning_rate' is .*; expected"),
        ({"learning_rate": {"low": 1, "high": 2, "lgo": True}}, r"'learning_rate' is .*; expected"),
        ({"base_channels": {"choices": [16]}}, r"'base_channels' is .*; expected"),
        (
            {"base_channels": {"choices": [16, 0]}},
            r"'base_channels' cannot be 0; expected a whole number of at least 1",
        ),
        ({"learning_rate": {"low": -1, "high": 1}}, r"'learning_rate' cannot be -1; expected a finite number"),
    ],
)
def test_other_spaces_are_refused(content, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file .*none\.json; expected a JSON file with the search space"):
        read_space(tmp_path / "none.json", KEYS)


def test_ranges_become_distributions_of_optuna(tmp_path):
    optuna = pytest.importorskip("optuna", reason="Optuna: bash scripts/test_ray.sh")
    content = {
        "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        "base_channels": {"low": 8, "high": 32, "step": 8},
        "slice_axis": {"choices": [2, [2, 1, 0]]},
    }
    assert read(tmp_path, content).distributions() == {
        "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True),
        "base_channels": optuna.distributions.IntDistribution(8, 32, step=8),
        "slice_axis": optuna.distributions.CategoricalDistribution([2, "[2, 1, 0]"]),
    }
