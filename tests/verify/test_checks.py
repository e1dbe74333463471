# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Each check fails for what it is there for; that good bundles pass is in tests/bundles/test_verify.py."""

from __future__ import annotations

import json
import shutil

import pytest

from segan_monai.errors import ConfigError
from segan_monai.verify import Check, format_checks, run_checks
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "my_segmentation"
    shutil.copytree(BUNDLES / HIPPOCAMPUS, folder, ignore=shutil.ignore_patterns("output", "models"))
    return folder


def edit(bundle, name, change):
    file = bundle / "configs" / name
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def result(bundle, *names, **settings):
    return [(check.result, check.detail) for check in run_checks(bundle, names=names, **settings)]


def test_files(bundle):
    (bundle / "LICENSE").unlink()
    (bundle / "configs" / "evaluate.json").unlink()
    assert result(bundle, "files") == [("FAILED", "missing: LICENSE, configs/evaluate.json")]


def test_metadata(bundle):
    edit(bundle, "metadata.json", lambda meta: meta.update(version="0.2.0"))
    assert result(bundle, "metadata") == [("FAILED", "version 0.2.0 is not in the changelog")]
    edit(bundle, "metadata.json", lambda meta: meta.pop("task"))
    assert result(bundle, "metadata") == [("FAILED", "metadata.json: 'task' is a required property")]


def test_document(bundle):
    readme = bundle / "docs" / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8").replace("## Performance", "## Results"), encoding="utf-8")
    assert result(bundle, "document") == [("FAILED", "docs/README.md has no section Performance")]
    readme.write_text("# Performance\n" + readme.read_text(encoding="utf-8"), encoding="utf-8")
    ((outcome, detail),) = result(bundle, "document")
    assert outcome == "FAILED"
    assert detail.startswith("docs/README.md: expected the order Model Overview, Data")


def test_labels(bundle):
    def drop(meta):
        del meta["network_data_format"]["outputs"]["pred"]["channel_def"]["2"]

    edit(bundle, "metadata.json", drop)
    assert result(bundle, "labels") == [("FAILED", "1 values for 2 regions")]


def test_network(bundle):
    edit(bundle, "metadata.json", lambda m: m["network_data_format"]["outputs"]["pred"].update(num_channels=5))
    ((outcome, detail),) = result(bundle, "network")
    assert outcome == "FAILED"
    assert "5" in detail


def test_a_bundle_that_cannot_run_fails_with_its_cause_and_the_others_go_on(bundle):
    def misspell(config):
        config["inferer"]["_target_"] = "VolumeSliceInfererr"

    edit(bundle, "inference.json", misspell)
    edit(bundle, "train.json", lambda config: config["train"].pop("inferer"))
    checks = result(bundle, "train", "infer", "weights")
    assert [outcome for outcome, _ in checks] == ["FAILED", "FAILED", "skipped"]
    assert "inferer" in checks[0][1]
    assert "VolumeSliceInfererr" in checks[1][1] or "model.pt" in checks[1][1]


def test_label_values_that_the_metadata_do_not_name(bundle, tmp_path):
    plain = {"slice_axis": 2, "neighbours": 0, "full_resolution_channels": 0}  # so little training finds both regions
    settings = {"work_dir": tmp_path / "work", "overrides": {"output_labels": [1, 9], **plain}}
    checks = result(bundle, "train", "infer", **settings)
    assert checks[0][0] == "ok"
    assert checks[1][0] == "FAILED"
    assert "9" in checks[1][1]
    assert "channel_def names [0, 1, 2]" in checks[1][1]


def test_what_is_no_bundle_or_check(tmp_path, bundle):
    with pytest.raises(ConfigError, match=r"has no configs/metadata.json; expected the folder of a bundle"):
        list(run_checks(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no check fly; expected some of files, metadata"):
        list(run_checks(bundle, names=["fly"]))


def test_table():
    table = format_checks([Check("files", "ok", "7 files", 0.01), Check("torchscript", "FAILED", "why", 12.345)])
    assert table.splitlines() == [
        "check        result       s  detail",
        "files        ok         0.0  7 files",
        "torchscript  FAILED    12.3  why",
    ]
