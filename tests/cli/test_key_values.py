# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from segan_monai.cli.key_values import key_value
from segan_monai.command_line import read_arguments
from segan_monai.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("modalities", "t1c,flair", ["t1c", "flair"]),
        ("modalities", "T1-w, T2 w", ["T1-w", "T2 w"]),
        ("modalities", "flair", ["flair"]),
        ("modalities", "1,2", ["1", "2"]),
        ("train_domains", "iSEG,MRBrainS", ["iSEG", "MRBrainS"]),
        ("slice_size", "128,96", [128, 96]),
        ("hu_window", "-100,240", [-100, 240]),
        ("adam_betas", ".9,.999", [0.9, 0.999]),
        ("slice_axis", "2", 2),
        ("slice_axis", "2,1", [2, 1]),
        ("norm", "batch", "batch"),
        ("output_labels", "dataset", "dataset"),
        ("output_labels", "1,2,4", [1, 2, 4]),
        ("loss_layers", "0", [0]),
        ("class_weights", "1,2.5", [1, 2.5]),
        ("regions", "lesion=1,2;core=2", {"lesion": [1, 2], "core": [2]}),
        ("regions", "brats2021", "brats2021"),
        ("slice_size", "many,more", ["many", "more"]),  # refused by the run, as typed
        ("weights", "run/model.pt", "run/model.pt"),
        ("weights", "/runs/0,/runs/1/model.pt", ["/runs/0", "/runs/1/model.pt"]),
        ("weights", "fold_0,fold_1", ["fold_0", "fold_1"]),
        ("first_domain", "site one, two", "site one, two"),
        ("keys_of_mine", "1,2", [1, 2]),
    ],
)
def test_lists_and_regions_are_typed_plainly(name, text, value):
    found = key_value(name, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("epochs", "3"),
        ("learning_rate", "1e-4"),
        ("amp", "false"),
        ("train_domains", "null"),
        ("modalities", "['t1c', 'flair']"),
        ("regions", "{'lesion': [1]}"),
        ("device", "$torch.device('cpu')"),
        ("cases", "@split"),
        ("ckpt_dir", "a,b"),
        ("cache_dir", "20240131"),
        ("train#trainer#max_epochs", "2"),
        ("resume", None),
    ],
)
def test_other_values_are_those_of_monai_bundle(name, text):
    words = [f"--{name}"] if text is None else [f"--{name}", text]
    assert key_value(name, text) == read_arguments(["training", *words])[name]


def test_wrong_regions():
    with pytest.raises(ConfigError, match="cannot parse 'lesion=a' in the regions 'lesion=a'"):
        key_value("regions", "lesion=a")


@pytest.mark.parametrize("name", ["config_file", "run_id", "args_file", "tracking"])
def test_options_of_monai_are_refused(name):
    with pytest.raises(ConfigError, match=rf"--{name} is an option of python -m monai.bundle run.*--overlay FILE"):
        key_value(name, "x")


def test_a_path_needs_a_value():
    with pytest.raises(ConfigError, match="--ckpt_dir has no value; expected a file or folder"):
        key_value("ckpt_dir", None)
