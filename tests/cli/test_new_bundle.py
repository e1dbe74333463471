# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shlex

from monai.bundle import ConfigParser
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
    assert "regions (label values) and the number of cases with each: organ (1) in 2" in result.output
    choices = " ".join(result.output.split())
    assert "slice_size [32, 48] 95 % of the cases have planes of at most 32x36" in choices
    bundle = tmp_path / "organ_segmentation"
    assert f"next:    segan-monai train {bundle} {data} -o organ_segmentation_training\n" in result.output
    assert f"         segan-monai evaluate organ_segmentation_training {data}\n" in result.output
    assert (bundle / "configs" / "train.json").is_file()


def test_odd_names_reach_the_configs_and_the_command_to_paste(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_raw(tmp_path / "patient's data #2", cases=2)
    result = run("organ_segmentation", "--method", "segan", "--data", data.name, "--output-dir", "my #1 bundles")
    assert result.exit_code == 0, result.output
    for file in ("train", "evaluate", "inference"):
        parser = ConfigParser()
        parser.read_config(str(tmp_path / "my #1 bundles" / "organ_segmentation" / "configs" / f"{file}.json"))
        assert parser.get_parsed_content("dataset_dir") == str(data)
    commands = [line.removeprefix("next:").strip() for line in result.output.splitlines()[-2:]]
    assert [shlex.split(command) for command in commands] == [
        ["segan-monai", "train", "./my #1 bundles/organ_segmentation", data.name, "-o", "organ_segmentation_training"],
        ["segan-monai", "evaluate", "organ_segmentation_training", data.name],
    ]


def test_errors_are_the_users(tmp_path):
    result = run("organ", "--method", "segan", "--data", tmp_path)
    assert isinstance(result.exception, ConfigError)


def test_wrong_usage_is_exit_status_2(tmp_path):
    assert run("organ_segmentation", "--data", tmp_path).exit_code == 2
