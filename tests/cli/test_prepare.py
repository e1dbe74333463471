# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from typer.testing import CliRunner

from segan_monai.cli.main import app
from segan_monai.prepare.sources import FIND
from tests.data.challenges import write_iseg


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("data_set", FIND)
def test_every_data_set_has_a_command_with_an_example(data_set):
    result = run("prepare", data_set, "--help")
    assert result.exit_code == 0
    assert f"Example: segan-monai prepare {data_set} " in " ".join(result.output.split())


def test_prepared_and_summed_up(tmp_path):
    write_iseg(tmp_path / "iSEG")
    result = run("prepare", "iseg", tmp_path / "iSEG", tmp_path / "out", "--workers", "1", "--spacing", "2,2,2")
    assert result.exit_code == 0, result.output
    assert f"2 cases prepared, 0 failed: {tmp_path / 'out'}" in result.output
    result = run("prepare", "iseg", tmp_path / "iSEG", tmp_path / "out", "--spacing", "2,2,2")
    assert "0 cases prepared, 2 already there, 0 failed" in result.output


def test_failed_cases_are_named_with_exit_status_1(tmp_path):
    write_iseg(tmp_path / "iSEG")
    (tmp_path / "iSEG/subject-2-T1.img").write_bytes(b"")
    result = run("prepare", "iseg", tmp_path / "iSEG", tmp_path / "out", "--workers", "1")
    assert result.exit_code == 1
    assert "1 case prepared, 1 failed" in result.output
    assert "failed: iSEG_subject-2: " in result.output


def test_wrong_usage_is_exit_status_2(tmp_path):
    assert run("prepare", "iseg", tmp_path, tmp_path / "out", "--spacing", "a,b").exit_code == 2
    assert run("prepare", "isic", tmp_path, tmp_path / "out", "--n4").exit_code == 2
    assert run("prepare", "other", tmp_path, tmp_path / "out").exit_code == 2


def test_download_says_what_it_takes():
    result = run("download", "hippocampus", "--help")
    assert result.exit_code == 0
    assert "Example: segan-monai download hippocampus" in result.output
