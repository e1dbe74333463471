# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from segan_monai.check.config_files import read_configs
from segan_monai.check.configs import check_properties, check_used, used_items
from segan_monai.check.report import Report
from tests.check.good_config import GOOD


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
