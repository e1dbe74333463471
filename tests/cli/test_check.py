# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from segan_monai.cli.main import app
from tests.bundles.workflow import BRATS, BUNDLES

CONFIGS = BUNDLES / BRATS / "configs"
SMALL = ["--device", "cpu", "--base_channels", "4", "--slice_size", "[32,32]", "--batch_size=4"]
SMALL += ["--slices_per_volume", "2", "--folds", "2"]


@pytest.fixture
def run(phantoms, tmp_path):
    def check(*more):
        files = f"['{CONFIGS / 'train.json'}','{BUNDLES.parent / 'configs' / 'quick_cpu.json'}']"
        places = ["--dataset_dir", str(phantoms), "--output_dir", str(tmp_path / "out")]
        return CliRunner().invoke(app, ["check", "training", "--config_file", files, *places, *SMALL, *more])

    return check


def test_the_arguments_of_monai_bundle_run_are_taken(run, tmp_path):
    result = run("--processes", "1", "--amp", "false")
    assert result.exit_code == 0, result.output
    assert "headers         ok                     4 cases read as LoadCased does" in result.output
    assert "passed: 0 errors" in result.output
    assert result.output.splitlines()[-1] == f"written: {tmp_path / 'out' / 'check' / 'check.json'}"


def test_an_error_is_exit_status_1(run, tmp_path):
    result = run("--quick", "--regions", "brats2020")
    assert result.exit_code == 1
    assert "error: unknown label convention regions='brats2020'" in result.output
    written = json.loads((tmp_path / "out" / "check" / "check.json").read_text(encoding="utf-8"))
    assert [finding["rule"] for finding in written["findings"]] == ["values"]


def test_a_typo_is_exit_status_1(run):
    result = run("--quick", "--learning_rte", "1")
    assert result.exit_code == 1
    assert "Did you mean --learning_rate" in result.output


def test_audit_lists_and_writes_nothing(run, tmp_path):
    result = run("--audit", "--learning_rate", "$__import__('os').getpid()")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "! expression  $__import__('os').getpid()    [learning_rate]" in lines
    assert "              ^ outside: the built-in __import__" in lines
    assert lines[-1].endswith("Nothing was run.")
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_exit_status_2(run):
    assert run("--processes", "none").exit_code == 2
