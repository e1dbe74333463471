# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from segan_monai.errors import ConfigError
from segan_monai.settings import parse_settings


def test_json_python_and_text():
    texts = ["a=1", "b=true", "c={'lesion': [1]}", "d=[1, 2]", "e=brats2021", "f#g=x=y", "h="]
    expected = {"a": 1, "b": True, "c": {"lesion": [1]}, "d": [1, 2], "e": "brats2021", "f#g": "x=y", "h": ""}
    assert parse_settings(texts) == expected


@pytest.mark.parametrize("text", ["epochs", "=3"])
def test_what_is_no_setting(text):
    with pytest.raises(ConfigError, match=f"cannot read the setting '{text}'; expected KEY=VALUE"):
        parse_settings([text])
