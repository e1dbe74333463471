# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import sys

import pytest

from segan_monai.check.audit import audit_config, format_audit
from tests.bundles.workflow import BUNDLES


def mark_of(tmp_path, value, imports=()):
    """The mark of the one config value that is no import."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"imports": list(imports), "x": 1, "value": value}), encoding="utf-8")
    (item,) = (item for item in audit_config({"config_file": str(file)}) if item.kind != "import")
    assert item.places == ("value",)
    return item.mark


@pytest.mark.parametrize(
    "value",
    [
        "$len(@x) + 1",
        "$@x.to('cpu')",
        "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "$[level for level in range(3)]",
        "$(lambda engine: engine.state)(@x)",
        {"_target_": "DiceLoss"},
        {"_target_": "torch.optim.Adam"},
        {"_target_": "ignite.handlers.ProgressBar"},
        {"_target_": "segan_monai.networks.SegANSegmentor"},
    ],
)
def test_what_stays_within_the_trusted_packages_is_not_marked(tmp_path, value):
    assert mark_of(tmp_path, value) == ""


@pytest.mark.parametrize(
    ("value", "mark"),
    [
        ({"_target_": "subprocess.run"}, "outside: subprocess is not a trusted package"),
        ({"_target_": "builtins.eval"}, "outside: builtins is not a trusted package"),
        ({"_target_": "torch.os.system"}, "outside: torch.os.system is posix.system"),
        ({"_target_": "torch.no_such_thing"}, "torch has no no_such_thing"),
        ("$torch.os.system('x')", "outside: torch.os.system is posix.system"),
        ("$torch.hub.load('a', 'b')", "loads code or data from elsewhere: torch.hub.load"),
        ("$torch.load('model.pt')", "loads code or data from elsewhere: torch.load"),
        ("$monai.bundle.run('x')", "loads code or data from elsewhere: monai.bundle.run"),
        ("$__import__('os').system('x')", "outside: the built-in __import__"),
        ("$open('/etc/passwd').read()", "outside: the built-in open"),
        ("$getattr(@x, 'y')", "outside: the built-in getattr"),
        ("$().__class__.__base__.__subclasses__()", "reaches into Python itself: __base__, __class__, __subclasses__"),
        ("$@x.__globals__", "reaches into Python itself: __globals__"),
        ("$[0 for open in [1]] or open('x')", "outside: the built-in open"),
        ("$1 +", "not a Python expression"),
    ],
)
def test_what_reaches_further_is_marked(tmp_path, value, mark):
    assert mark_of(tmp_path, value).startswith(mark)


def test_a_class_that_an_expression_names_is_listed_as_that_expression(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"a": {"_target_": "$eval('print')", "x": 1}}), encoding="utf-8")
    (item,) = audit_config({"config_file": str(tmp_path / "c.json")})
    assert (item.kind, item.text, item.places) == ("expression", "$eval('print')", ("a#_target_",))
    assert item.mark == "outside: the built-in eval"


def test_names_that_imports_bring_are_followed(tmp_path):
    assert mark_of(tmp_path, "$o.system('x')", ["$from torch import os as o"]).startswith("outside: torch.os.system")
    assert mark_of(tmp_path, "$path.join('a', 'b')", ["$import os.path as path"]).startswith(
        "outside: os is not a trusted package"
    )
    assert mark_of(tmp_path, "$nn.Linear(1, 2)", ["$import torch.nn as nn"]) == ""


def test_nothing_is_run_and_nothing_is_imported(tmp_path):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')", encoding="utf-8")
    sys.path.insert(0, str(tmp_path))
    touch = f"$open({str(tmp_path / 'ran')!r}, 'w')"
    config = {
        "imports": ["$import evil_module"],
        "run": [touch],
        "component": {"_target_": "evil_module.Thing", "_disabled_": touch},
        "macro": "%run",
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    try:
        items = audit_config({"config_file": str(tmp_path / "config.json"), "run": [touch + " or 1"]})
    finally:
        sys.path.remove(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"evil_module.py", "config.json"}
    assert "evil_module" not in sys.modules
    assert {(item.kind, item.text) for item in items} == {
        ("import", "import evil_module"),
        ("class", "evil_module.Thing"),
        ("expression", touch),
        ("expression", touch + " or 1"),
    }
    assert all(item.mark for item in items)


def test_expressions_in_overrides_overlays_and_metadata_are_listed_too(tmp_path):
    for name, content in (
        ("train.json", {"a": 1, "b": 2}),
        ("overlay.json", {"b": "$eval('1')"}),
        ("metadata.json", {"version": "$eval('2')"}),
    ):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    files = [str(tmp_path / "train.json"), str(tmp_path / "overlay.json")]
    items = audit_config({"config_file": files, "a": "$eval('3')"})
    assert {(item.text, item.places) for item in items} == {
        ("$eval('1')", ("b",)),
        ("$eval('2')", ("_meta_#version",)),
        ("$eval('3')", ("a",)),
    }


def test_python_files_of_a_bundle_are_listed(tmp_path):
    for name in ("configs/train.json", "scripts/net/blocks.py", "setup.py", "docs/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}", encoding="utf-8")
    items = audit_config({"config_file": str(tmp_path / "configs" / "train.json")})
    assert [(item.kind, item.text) for item in items] == [
        ("python file", "scripts/net/blocks.py"),
        ("python file", "setup.py"),
    ]


@pytest.mark.parametrize("bundle", sorted(path.name for path in BUNDLES.iterdir() if path.is_dir()))
def test_our_own_bundles_reach_no_further_than_progress_bars(bundle):
    configs = BUNDLES / bundle / "configs"
    together = {"multi_gpu_train.json": "train.json", "multi_gpu_evaluate.json": "evaluate.json"}
    for file in sorted(configs.glob("*.json")):
        if file.name == "metadata.json":
            continue
        files = [str(configs / together[file.name])] if file.name in together else []
        marked = {item.text for item in audit_config({"config_file": [*files, str(file)]}) if item.mark}
        assert marked <= {"import sys", "$sys.stderr.isatty()"}, file


def test_the_listing_puts_what_is_marked_first(tmp_path):
    content = {"imports": ["$import torch", "$import os"], "a": "$1 + 1", "b": "$1 + 1"}
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    assert format_audit(audit_config({"config_file": str(tmp_path / "config.json")})).splitlines() == [
        "! import      import os    [imports#1]",
        "              ^ outside: os is not a trusted package",
        "  import      import torch    [imports#0]",
        "  expression  $1 + 1    [a and 1 more]",
        "1 expression, 2 imports; 1 to look at, outside torch, monai, segan_monai, ignite. Nothing was run.",
    ]
