# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

from segan_monai.check.report import Report


def test_the_table_has_a_row_a_rule_and_the_file_has_all(tmp_path):
    report = Report()
    report.note("keys", "every override names a key")
    report.note("spacing", "median 1 mm")
    for index in range(5):
        report.warning("spacing", f"c{index}", f"image {index} is thick")
    report.error("labels", "c0", "label 9")
    assert report.table().splitlines() == [
        "keys            ok                     every override names a key",
        "spacing         5 warnings             median 1 mm",
        "    warning: image 0 is thick",
        "    warning: image 1 is thick",
        "    warning: image 2 is thick",
        "    and 2 more in check.json",
        "labels          1 error",
        "    error: label 9",
        "failed: 1 error, 5 warnings",
    ]
    report.write(tmp_path / "new" / "check.json")
    written = json.loads((tmp_path / "new" / "check.json").read_text(encoding="utf-8"))
    assert (written["passed"], written["errors"], written["warnings"]) == (False, 1, 5)
    assert written["findings"][4] == {
        "rule": "spacing",
        "level": "warning",
        "where": "c4",
        "message": "image 4 is thick",
    }


def test_warnings_do_not_fail():
    report = Report()
    report.warning("spacing", "c0", "thick")
    assert report.table().splitlines()[-1] == "passed: 0 errors, 1 warning"


def test_long_rows_are_wrapped():
    report = Report()
    report.note("spacing", "x " * 60)
    first, second, _ = report.table().splitlines()
    assert first.startswith("spacing         ok                     x x")
    assert second.startswith(" " * 39 + "x")
    assert max(len(first), len(second)) <= 118
