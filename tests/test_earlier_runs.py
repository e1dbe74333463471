# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Restarts by torchrun; see tests/bundles/test_multi_gpu.py for a killed process."""

from __future__ import annotations

import json

import pytest

from segan_monai.earlier_runs import launch_of_process, was_restarted
from segan_monai.errors import ConfigError


def test_a_restart_resumes_what_its_own_launch_has_left(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert launch_of_process() == {}
    (tmp_path / "last.pt").touch()
    assert not was_restarted(tmp_path), "torchrun did not start this process"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    (tmp_path / "run.json").write_text(json.dumps({"seed": 0, **launch_of_process()}), encoding="utf-8")
    assert not was_restarted(tmp_path), "the first start"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert was_restarted(str(tmp_path))
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"one of 2 machines; --max-restarts needs .* again with --resume true"):
        was_restarted(tmp_path)
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "b")
    assert not was_restarted(tmp_path), "the checkpoint of an earlier launch"
    (tmp_path / "run.json").write_text("{", encoding="utf-8")
    assert not was_restarted(tmp_path), "a damaged record"
    (tmp_path / "last.pt").unlink()
    assert not was_restarted(tmp_path), "no checkpoint yet"
