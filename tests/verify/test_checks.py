# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Each check fails for what it is there for; that good bundles pass is in tests/bundles/test_verify.py."""

from __future__ import annotations

import pytest

from segan_monai.errors import ConfigError
from segan_monai.verify import Check, format_checks, run_checks

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


def test_a_bundle_that_cannot_run_fails_with_its_cause_and_the_others_go_on(edit, result):
    def misspell(config):
        config["inferer"]["_target_"] = "VolumeSliceInfererr"

    edit("inference.json", misspell)
    edit("train.json", lambda config: config["train"].pop("inferer"))
    checks = result("train", "infer", "weights")
    assert [outcome for outcome, _ in checks] == ["FAILED", "FAILED", "skipped"]
    assert "inferer" in checks[0][1]
    assert "VolumeSliceInfererr" in checks[1][1] or "model.pt" in checks[1][1]


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
