# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from segan_monai.cli.main import app
from segan_monai.cli.reproduce import parse_numbers
from segan_monai.errors import ConfigError
from segan_monai.reproduce import RunFailedError, load_tables
from tests.reproduce.results import result


def test_the_command_prints_markdown_and_csv_and_goes_on_after_a_failure(tmp_path, monkeypatch):
    asked = []

    def run_row(plan, name, seed, fold, labels):
        asked.append((name, seed, fold, plan.overrides["epochs"], [file.name for file in plan.configs]))
        if name == "SegAN":
            raise RunFailedError("row 'SegAN', seed 0: training ended with status 1")
        return result(name, seed, 0.5, 0.25)

    monkeypatch.setattr("segan_monai.reproduce.run_row", run_row)
    (tmp_path / "data").mkdir()
    command = ["reproduce", "segan-vs-unet", "--dataset-dir", str(tmp_path / "data"), "--seeds", "0"]
    command += ["--output-dir", str(tmp_path / "out"), "--config", "configs/cpu.json", "--set", "epochs=1"]
    done = CliRunner().invoke(app, [*command, "--row", "SegAN", "--row", "U-Net + Dice"])
    assert asked == [(name, 0, None, 1, ["cpu.json"]) for name in ("SegAN", "U-Net + Dice")]
    assert done.exit_code == 1
    assert "| U-Net + Dice |" in done.output
    assert "**SegAN failed**" in done.output
    assert "row,seed,region,cases,failures,dice" in done.output
    assert (tmp_path / "out" / "segan_vs_unet.md").read_text(encoding="utf-8").startswith("|  | Dice left |")
    assert len((tmp_path / "out" / "segan_vs_unet.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2


@pytest.mark.parametrize("text", ["", "0,0", "1;2", "-1", "one"])
def test_seeds_that_cannot_be_read(text):
    with pytest.raises(ConfigError, match="cannot parse the seeds"):
        parse_numbers(text, "seeds")


def test_seeds():
    assert parse_numbers("0, 1,2", "seeds") == [0, 1, 2]


def test_parts_run_each_run_once_and_need_a_number_of_epochs(tmp_path, monkeypatch):
    asked = []

    def run_row(plan, name, seed, fold, labels):
        asked.append((plan.table.rows[name], seed))
        return result(name, seed, 0.5, 0.25)

    def refuse(plan, name, seed, fold, labels):
        asked.append(name)
        raise ConfigError(f"out/seed_{seed} holds a run with other settings")

    monkeypatch.setattr("segan_monai.reproduce.run_row", run_row)
    (tmp_path / "data").mkdir()
    command = ["reproduce", "lsnet", "--dataset-dir", str(tmp_path / "data"), "--output-dir", str(tmp_path / "out")]
    command += ["--seeds", "0,1"]
    for part in ("1/2", "2/2"):
        done = CliRunner().invoke(app, [*command, "--part", part])
        assert done.exit_code == 0, done.output
        assert f"part {part}: {len(asked)} of {len(asked)} runs finished" in done.output or part == "2/2"
    folders = [("+".join(file.stem for file in overlays), seed) for overlays, seed in asked]
    expected = {
        ("+".join(file.stem for file in overlays), seed)
        for table in load_tables("lsnet")
        for overlays in table.rows.values()
        for seed in (0, 1)
    }
    assert sorted(folders) == sorted(expected), "rows that tables share run once"
    assert not list((tmp_path / "out").glob("*.csv"))

    with monkeypatch.context() as patched:
        patched.setattr("segan_monai.reproduce.run_row", refuse)
        asked.clear()
        done = CliRunner().invoke(app, [*command, "--part", "1/2"])
    assert done.exit_code == 1
    assert done.output.count("segan-monai: error: out/seed_") == len(asked) > 1, "each is named, and the next goes on"
    assert f"part 1/2: 0 of {len(asked)} runs finished" in done.output

    refused = CliRunner().invoke(app, [*command, "--part", "1/99"])
    assert re.search(r"--part 1/99: there are only \d+ runs", str(refused.exception))
    refused = CliRunner().invoke(app, [*command, "--part", "1/2", "--train-seconds", "9"])
    assert "--part and --train-seconds exclude each other" in str(refused.exception)
