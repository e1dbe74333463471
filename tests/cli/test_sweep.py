# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``segan-monai sweep`` checks before and prints after a search; the search itself is in ``tests/sweep``."""

from __future__ import annotations

import json
import shlex

import pytest
import typer
from typer.testing import CliRunner

from segan_monai.check.config_files import read_configs
from segan_monai.cli.bundle_runs import run_arguments
from segan_monai.cli.main import app
from segan_monai.cli.sweep import _command_of
from segan_monai.errors import ConfigError
from segan_monai.sweep import Space, Sweep
from segan_monai.sweep.training import Training
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS


def test_the_command_after_a_sweep_repeats_the_best_trial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, overlay, datalist = tmp_path / "my data", tmp_path / "it's small.json", tmp_path / "list #2.json"
    data.mkdir()
    overlay.write_text('{"slice_size": [32, 32], "norm": "instance", "learning_rate": 1}', encoding="utf-8")
    datalist.write_text('{"training": []}', encoding="utf-8")
    settings = {
        "regions": {"a": [1], "b": [2]},
        "skull_stripped": False,
        "seed": 7,
        "base_channels": 32,
        "cache_dir": "$c",
    }
    space = Space({"base_channels": {"choices": [4, 8]}, "learning_rate": {"low": 1e-5, "high": 1e-3}})
    bundle = BUNDLES / HIPPOCAMPUS
    sweep = Sweep(bundle, data, tmp_path / "out", space, 3, datalist=datalist, overlays=(overlay,), settings=settings)
    for _ in range(2):
        trial = Training(sweep, "9f", {"base_channels": 4, "learning_rate": 1.5e-4})
        trial.stop()
        (trial.training / "last.pt").touch()  # of a trial that was killed, which then resumes
    assert json.loads(sweep.config_of("9f").read_text(encoding="utf-8"))["resume"] is True

    words = shlex.split(_command_of("hippocampus", data.relative_to(tmp_path), [overlay, sweep.config_of("9f")]))
    assert words[:3] == ["segan-monai", "train", "hippocampus"]
    train = typer.main.get_command(app).commands["train"]
    given = train.make_context("train", words[2:])
    typed = given.params
    arguments = run_arguments("train", typed["bundle"], typed["data"], typed["output_dir"], typed["overlay"], given.obj)
    found = read_configs(arguments)
    expected = {**settings, "base_channels": 4, "learning_rate": 1.5e-4, "epochs": 3, "resume": False}
    expected |= {"slice_size": [32, 32], "norm": "instance", "datalist": str(datalist)}
    assert {key: found.get_parsed_content(key) for key in expected} == expected
    assert arguments["dataset_dir"] == "my data"
    assert arguments["output_dir"] == arguments["ckpt_dir"] == f"{HIPPOCAMPUS}_training"


def test_epochs_before_a_stop_must_be_those_of_a_training(tmp_path):
    (tmp_path / "space.json").write_text('{"base_channels": {"choices": [4, 8]}}', encoding="utf-8")
    (tmp_path / "data").mkdir()
    words = ["sweep", "hippocampus", tmp_path / "data", "-o", tmp_path / "out", "--space", tmp_path / "space.json"]
    result = CliRunner().invoke(app, [*map(str, words), "--set", "epochs=3", "--min-epochs", "4"])
    with pytest.raises(ConfigError, match=r"--min-epochs is 4, but a training has 3 epochs. Expected at most 3: lower"):
        raise result.exception
    assert not (tmp_path / "out").exists()
