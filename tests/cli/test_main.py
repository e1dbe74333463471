# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from typer.testing import CliRunner

from segan_monai.cli.main import app


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("output", [["--output-dir=~/made #1"], ["--output-dir", "~/made #1"]])
def test_home_is_expanded_in_a_command(tmp_path, output):
    (tmp_path / "labels").mkdir()
    result = CliRunner().invoke(app, ["evaluate", "--predictions=~/labels", "--references", "~/labels", *output])
    assert str(tmp_path / "labels") in str(result.exception), "the folder was found, and is empty"
    assert not (tmp_path / "~").exists()


def test_home_is_expanded_in_a_nested_command(tmp_path):
    result = CliRunner().invoke(app, ["prepare", "msd", "~/none", "~/prepared"])
    assert str(tmp_path / "none") in str(result.exception)


def test_other_words_stay_as_they_are():
    result = CliRunner().invoke(app, ["check", "training", "--config_file", "a~/b.json"])
    assert "config file a~/b.json: there is no such file" in result.output
