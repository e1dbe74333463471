# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from segan_monai.check.expressions import names_any_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$segan_monai.start_run(@output_dir, @seed)", True),
        ("$start_run(0)", True),
        ("$[segan_monai.start_run('a', 0)][0]", True),
        ("$segan_monai.load_weights(@network, 'start_run/model.pt')", False),  # as text it is no call
        ("$restart_runs()", False),
        ("segan_monai.start_run()", False),  # not an expression
        ("$import segan_monai", False),
        ("$(", False),
        ({"_target_": "start_run"}, False),
        (None, False),
    ],
)
def test_names_are_parsed_not_searched_in_the_text(text, expected):
    assert names_any_of(text, ("start_run",)) is expected
