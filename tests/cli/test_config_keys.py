# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from segan_monai.check.keys import KEYS
from segan_monai.cli.config_keys import key_help, key_purposes, split_keys

OWN = ["--output-dir", "-o", "--verbose", "--help", "-h"]


@pytest.mark.parametrize(
    ("typed", "rest", "keys"),
    [
        ("brats data --epochs 3", "brats data", {"epochs": "3"}),
        ("--epochs 3 brats data", "brats data", {"epochs": "3"}),
        ("brats --learning-rate=1e-4 data", "brats data", {"learning_rate": "1e-4"}),
        ("brats --resume --verbose data -o out", "brats --verbose data -o out", {"resume": None}),
        ("--seed -1 --amp", "", {"seed": "-1", "amp": None}),
        ("--output_dir=my_out --output_dir a_b", "--output-dir=my_out --output-dir a_b", {}),
        ("--train#trainer#max_epochs 2 --fold 1 --fold 2", "", {"train#trainer#max_epochs": "2", "fold": "2"}),
        ("--subset= -- --epochs", "--", {"subset": "", "epochs": None}),
    ],
)
def test_keys_are_separated_from_own_options(typed, rest, keys):
    assert split_keys(typed.split(), OWN) == (rest.split(), keys)


def test_purposes_are_those_of_the_table():
    assert key_purposes() == {name: key.purpose for name, key in KEYS.items()}


def test_help_lists_keys_with_defaults_as_they_are_typed():
    lines = key_help("hippo", "train").splitlines()
    assert "Keys of hippocampus_mri_segan_segmentation, with their defaults:" in lines
    assert "run" in lines
    words = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines if line.startswith("  --")}
    assert words["--epochs"] == ["200", "passes over the training cases"]
    assert words["--slice_size"][0] == "48,48"
    assert words["--regions"][0] == "'anterior=1;posterior=2'"
    assert words["--amp"][0] == "(computed)"
    assert not {"--dataset_dir", "--output_dir", "--cases", "--trainer", "--imports"} & set(words)
    assert "--subset" in key_help("hippo", "evaluate")
    assert "components" not in key_help("hippo", "train")


def test_help_of_a_run_lists_the_keys_of_its_bundle(tmp_path):
    record = {"bundle": "hippocampus_mri_segan_segmentation", "config": {}}
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert key_help(str(tmp_path), "predict") == key_help("hippo", "predict")


def test_help_without_a_bundle_lists_no_keys():
    assert key_help("", "train") == ""
    assert key_help("nothing", "train") == "\n'nothing' is not a bundle; its keys are not listed."
