# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from segan_monai.typed import config_value, config_values, is_path_key, path_value, read_literals, typed_values
from tests.bundles.workflow import BUNDLES

NAMES = [
    "patient #2",
    "/data/patient #2/a#b",
    "$HOME",
    "@dataset_dir",
    "%network",
    "a::b",
    "@#x",
    "$import os",
    'it\'s "quoted" #1',
    "back\\slash #",
    "ärzte#ü",
    "tab\t#\n",
    "not UTF-8 \udcff#",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_config_gives_back_the_path_that_was_written_into_it(name):
    config = {
        "imports": ["$import os"],
        "dataset_dir": config_value("dataset_dir", name),
        "file": "$@dataset_dir + '/x'",
        "cases": {"_target_": "dict", "folder": "@dataset_dir"},
    }
    parser = ConfigParser(json.loads(json.dumps(config)))
    for _ in range(2):  # a config that is parsed again has been rewritten by MONAI
        parser.parse()
        assert parser.get_parsed_content("dataset_dir") == name
        assert parser.get_parsed_content("file") == f"{name}/x"
        assert parser.get_parsed_content("cases") == {"folder": name}


def test_plain_paths_and_other_keys_stay_readable():
    values = {"dataset_dir": "/data/a b, (c) 50 %", "regions": "$x", "output_dir": None, "epochs": 3}
    assert config_values(values) == values
    assert config_value("dataset_dir", "patient #2") == r"$'patient \x232'"


def test_every_path_of_the_bundles_is_known_as_one():
    keys = {}
    for file in BUNDLES.glob("*/configs/*.json"):
        keys |= json.loads(file.read_text(encoding="utf-8"))
    paths = {key for key in keys if is_path_key(key)}
    assert paths == {
        "bundle_root",
        "cache_dir",
        "ckpt_dir",
        "included_weights_dir",
        "datalist",
        "dataset_dir",
        "initial_weights",
        "localizer_weights",
        "mlflow",
        "output_dir",
        "segmentor_weights",
        "split_file",
    }
    settings = [key for key in keys if not key.startswith("_") and key != "weight_files"]  # follows from others
    assert not [key for key in settings if re.search("dir|file|path|root|folder", key) and key not in paths]
    assert is_path_key("cases#dataset_dir")
    assert is_path_key("cases::datalist")


def test_paths_are_text(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    texts = {"~/x #1": "/home/me/x #1", "~": "/home/me", "a~": "a~", "http://host//x": "http://host//x", "null": None}
    assert {text: path_value(text) for text in texts} == texts
    assert path_value(20240131) == "20240131"
    assert path_value(None) is None
    assert path_value(["a"]) == ["a"]


def test_literals_of_the_command_line():
    assert read_literals({"amp": "false", "datalist": "null", "name": "truest", "x": False}) == {
        "amp": False,
        "datalist": None,
    }


def test_only_the_command_line_gives_paths_that_look_like_expressions(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    files = {"bundle_root": "$bundle()", "dataset_dir": "a#1", "ckpt_dir": "@output_dir", "cache_dir": "~/c"}
    overrides = {"split_file": "$x", "cases#datalist": "null", "mlflow": "true", "output_dir": "true", "amp": "true"}
    files["datalist"] = config_value("datalist", "$d #1")
    assert typed_values(files, overrides) == {
        "datalist": "$d #1",
        "dataset_dir": "a#1",
        "cache_dir": str(Path("/home/me/c")),
        "split_file": "$x",
        "cases#datalist": None,
        "output_dir": "true",
        "mlflow": True,
        "amp": True,
    }
