# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re

import pytest

from segan_monai.check.configs import (
    check_properties,
    check_used,
    read_configs,
    run_id_of,
    used_items,
)
from segan_monai.check.report import Report
from segan_monai.errors import ConfigError
from segan_monai.run import read_arguments

GOOD = {
    "imports": ["$import torch"],
    "learning_rate": 0.1,
    "device": "$torch.device('cpu')",
    "network": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3},
    "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": "@learning_rate"},
    "transforms": {"_target_": "Compose", "transforms": [{"_target_": "EnsureTyped", "keys": "image"}]},
    "never_used": {"_target_": "NoSuchThing", "x": "@nowhere"},
    "training": ["$@optimizer.step()", "$@transforms", "$@device"],
    "run": "%training",
}


@pytest.fixture
def checked(tmp_path):
    """Write a config that differs from a good one, check what its run uses, and return the messages by rule."""

    def check(**changes):
        file = tmp_path / "train.json"
        file.write_text(json.dumps(GOOD | changes), encoding="utf-8")
        parser = read_configs({"config_file": str(file)})
        report = Report()
        check_used(parser, *used_items(parser, ["run"]), report)
        return [(finding.rule, finding.message) for finding in report.errors]

    return check


def test_a_good_config_has_no_errors_and_what_is_never_used_does_not_count(checked):
    assert checked() == []


@pytest.mark.parametrize(
    ("changes", "rule", "message"),
    [
        (
            {"training": ["$@optimiser.step()"]},
            "references",
            "run refers to @optimiser, which the config does not have. Did you mean @optimizer? ",
        ),
        (
            {"imports": ["$import torch", "$import no_such_package"]},
            "imports",
            "imports#1: 'import no_such_package' fails (ModuleNotFoundError: No module named 'no_such_package')",
        ),
        (
            {"imports": ["$import torch", "$from torch import no_such_name"]},
            "imports",
            "imports#1: 'from torch import no_such_name' fails (AttributeError",
        ),
        ({"device": "$torch.device('cpu'"}, "expressions", "device: '$torch.device('cpu'' is no Python expression"),
        (
            {"device": "$os.environ['X']"},
            "expressions",
            "uses os, which nothing imports. Add \"$import os\" to 'imports'",
        ),
        (
            {"learning_rate": "$torhc.tensor(1)"},
            "expressions",
            "uses torhc, which nothing imports. Did you mean torch?",
        ),
        (
            {"device": "$torch.cuda.is_availible()"},
            "expressions",
            "device: '$torch.cuda.is_availible()': torch.cuda has no is_availible. Did you mean is_available",
        ),
        (
            {"transforms": {"_target_": "Compoze"}},
            "classes",
            "transforms: there is no class or function Compoze. Did you mean Compose",
        ),
        (
            {"network": GOOD["network"] | {"_target_": "torch.nn.Linea"}},
            "classes",
            "network: there is no class or function torch.nn.Linea. ",
        ),
        (
            {"network": GOOD["network"] | {"out_feature": 3}},
            "classes",
            "network: torch.nn.Linear takes no 'out_feature'. Did you mean out_features",
        ),
        (
            {"network": {"_target_": "torch.nn.Linear", "in_features": 2}},
            "classes",
            "network: torch.nn.Linear needs out_features, which the config does not give it.",
        ),
    ],
)
def test_what_cannot_run_is_found_without_running_it(checked, changes, rule, message):
    assert any(found == rule and message in text for found, text in checked(**changes)), checked(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": {"_target_": "torch.nn.Linear", "_mode_": "callable", "in_features": 2}},
        {"network": {"_target_": "NoSuchThing", "_disabled_": True}},
        {"network": {"_target_": "$torch.nn.Linear", "in_features": 2, "out_features": 3}},
        {"learning_rate": "$[rate * 2 for rate in [1, 2]][0]"},
        {"device": "$(lambda engine: engine)(1)"},
        {"imports": ["$import torch", "$import os.path as p"], "device": "$p.join('a', 'b')"},
        {"device": "$torch.utils.tensorboard.SummaryWriter"},
        {"_network_": "---- the title of a section ----"},
    ],
)
def test_what_monai_accepts_is_no_error(checked, changes):
    assert checked(**changes) == []


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("learning_rte", "unknown key --learning_rte: .*train.json has no such key. Did you mean --learning_rate"),
        ("_network_", "unknown key --_network_: .*train.json has no such key. Did you mean --network"),
        ("network#in_features#x", "unknown key --network#in_features#x: .*'network#in_features' is 2 and has no keys"),
        ("transforms#tranforms#0", "has no 'tranforms' in 'transforms'. Did you mean --transforms#transforms"),
        ("transforms::transforms::3::keys", "has no '3' in 'transforms#transforms'. Known there: 0"),
    ],
)
def test_overrides_that_name_no_key(tmp_path, key, message):
    titled = {"_network_": "---- the title of a section ----", **GOOD}
    (tmp_path / "train.json").write_text(json.dumps(titled), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_configs({"config_file": str(tmp_path / "train.json"), key: 1})


def test_overrides_reach_into_components_and_may_add_an_argument(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(GOOD), encoding="utf-8")
    arguments = {
        "config_file": str(tmp_path / "train.json"),
        "network#bias": False,
        "transforms#transforms#0#keys": "x",
    }
    parser = read_configs(arguments)
    assert parser["network::bias"] is False
    assert parser["transforms::transforms::0::keys"] == "x"


def test_a_missing_config_file_names_what_is_there(tmp_path):
    (tmp_path / "train.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"trian.json: there is no such file. Did you mean .*/train.json"):
        read_configs({"config_file": [str(tmp_path / "trian.json")]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,}', r"bad.json cannot be read \(.*line 1 column 9"),
        ("[1]", "bad.json holds a list; expected an object of keys"),
        ('{"a": "%nowhere"}', r"a macro \(text that starts with %\) leads nowhere"),
    ],
)
def test_a_damaged_config_file(tmp_path, text, message):
    (tmp_path / "bad.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_configs({"config_file": str(tmp_path / "bad.json")})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_with_a_byte_order_mark(tmp_path, encoding):
    file = tmp_path / "overlay.json"
    file.write_text("{}", encoding=encoding)
    with pytest.raises(
        ConfigError, match=r"overlay\.json begins with a UTF-.* byte order mark, .* Save the file as UTF-8"
    ):
        read_configs({"config_file": [str(file)]})


def test_a_damaged_metadata_file(tmp_path):
    (tmp_path / "train.json").write_text("{}", encoding="utf-8")
    (tmp_path / "metadata.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"metadata.json cannot be read"):
        read_configs({"config_file": str(tmp_path / "train.json")})


def test_an_unknown_run_id_names_the_nearest(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(GOOD), encoding="utf-8")
    parser = read_configs({"config_file": str(tmp_path / "train.json")})
    assert run_id_of(parser, "training") == "training"
    with pytest.raises(ConfigError, match=r"nothing to run is called 'trainig'. Did you mean training"):
        run_id_of(parser, "trainig")


def test_ids_that_monai_requires(tmp_path):
    (tmp_path / "train.json").write_text(
        json.dumps(GOOD | {"train": {"trainer": {"max_epochs": 1}}, "data_set_dir": 1}), encoding="utf-8"
    )
    report = Report()
    check_properties(read_configs({"config_file": str(tmp_path / "train.json")}), "training", report)
    messages = [finding.message for finding in report.errors]
    assert "the config lacks the id train#dataset, which MONAI requires. " in messages
    assert any("lacks the id dataset_dir, which MONAI requires. Did you mean data_set_dir" in text for text in messages)
    assert not any("max_epochs" in text for text in messages)


@pytest.mark.parametrize("name", ["patient #2", "20240131", "a,b", "$x", "@x"])
def test_paths_are_what_was_typed(tmp_path, name):
    config = GOOD | {"dataset_dir": "data", "cache_dir": "c #1"}
    (tmp_path / "train.json").write_text(json.dumps(config), encoding="utf-8")
    parser = read_configs(read_arguments([f"--config_file={tmp_path / 'train.json'}", f"--dataset_dir={name}"]))
    assert parser.get_parsed_content("dataset_dir") == name
    assert parser.get_parsed_content("cache_dir") == "c #1"


@pytest.mark.parametrize("path", ["%x", "$x", "@x", "a@##b"])
def test_a_path_that_stops_monai_is_refused_with_what_to_write(tmp_path, path):
    (tmp_path / "train.json").write_text(json.dumps(GOOD | {"output_dir": "out"}), encoding="utf-8")
    arguments = read_arguments([f"--config_file={tmp_path / 'train.json'}", f"--output_dir={path}"])
    with pytest.raises(ConfigError, match=rf"--output_dir {re.escape(path)}: monai.bundle takes .* Write ./"):
        read_configs(arguments)
