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


def test_paths_are_text(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    texts = ["dataset_dir=20240131", "output_dir=[x]", "ckpt_dir=~/a #2", "cache_dir=null"]
    expected = {"dataset_dir": "20240131", "output_dir": "[x]", "ckpt_dir": "/home/me/a #2", "cache_dir": None}
    assert parse_settings(texts) == expected


@pytest.mark.parametrize("text", ["epochs", "=3"])
def test_what_is_no_setting(text):
    with pytest.raises(ConfigError, match=f"cannot parse the setting '{text}'; expected KEY=VALUE"):
        parse_settings([text])
