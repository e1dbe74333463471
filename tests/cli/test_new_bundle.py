# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typer.testing import CliRunner

from segan_monai.cli.main import app
from segan_monai.errors import ConfigError
from tests.new_bundle.data import write_raw


def run(*arguments):
    return CliRunner().invoke(app, ["new-bundle", *map(str, arguments), "--processes", "1"])


def test_measures_choices_and_what_to_type_next(tmp_path):
    data = write_raw(tmp_path / "data", cases=2)
    result = run("organ_segmentation", "--method", "segan", "--data", data, "--output-dir", tmp_path)
    assert result.exit_code == 0, result.output
    assert "2 labelled cases of 2 subjects; channels: T1" in result.output
    assert "regions (label values) and the cases that hold them: organ (1) in 2" in result.output
    assert "slice_size                [32, 48]  95 % of the cases have planes of at most 32x36" in result.output
    config = tmp_path / "organ_segmentation" / "configs" / "train.json"
    assert f"next:    python -m monai.bundle run training --config_file {config}" in result.output
    assert config.is_file()


def test_errors_are_the_users(tmp_path):
    result = run("organ", "--method", "segan", "--data", tmp_path)
    assert isinstance(result.exception, ConfigError)


def test_wrong_usage_is_exit_status_2(tmp_path):
    assert run("organ_segmentation", "--data", tmp_path).exit_code == 2
