# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("process_as_before")


def test_label_values_that_the_metadata_do_not_name(result, tmp_path):
    plain = {"slice_axis": 2, "neighbours": 0, "full_resolution_channels": 0}  # so little training finds both regions
    settings = {"work_dir": tmp_path / "work", "overrides": {"output_labels": [1, 9], **plain}}
    checks = result("train", "infer", **settings)
    assert checks[0][0] == "ok"
    assert checks[1][0] == "FAILED"
    assert "9" in checks[1][1]
    assert "channel_def names [0, 1, 2]" in checks[1][1]
