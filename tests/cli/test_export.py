# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from segan_monai.cli.export import export
from segan_monai.errors import ConfigError
from segan_monai.networks import SegANSegmentor
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS

pytestmark = pytest.mark.slow


def test_writes_a_file_that_gives_the_networks_logits(tmp_path):
    app = typer.Typer()
    app.command()(export)
    torch.manual_seed(0)
    network = SegANSegmentor(7, 2, 4, full_resolution_channels=8).eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    bundle, file = str(BUNDLES / HIPPOCAMPUS), tmp_path / "model.ts"
    options = ["--output", str(file), "--weights", str(tmp_path / "model.pt")]
    result = CliRunner().invoke(app, ["torchscript", bundle, *options, "--set", "base_channels=4"])
    assert result.exit_code == 0, result.exception
    assert f"written: {file}" in result.stdout
    image = torch.rand(1, 7, 40, 50)
    torch.testing.assert_close(torch.jit.load(file)(image), network(image))
    runs = tmp_path / "run"  # the folder of a training names bundle and weights
    runs.mkdir()
    (tmp_path / "model.pt").rename(runs / "model.pt")
    (runs / "run.json").write_text(json.dumps({"bundle": HIPPOCAMPUS}), encoding="utf-8")
    result = CliRunner().invoke(
        app, ["torchscript", str(runs), "-o", str(tmp_path / "run.ts"), "--set", "base_channels=4"]
    )
    assert result.exit_code == 0, result.exception
    torch.testing.assert_close(torch.jit.load(tmp_path / "run.ts")(image), network(image))
    result = CliRunner().invoke(app, ["pmml", "hippocampus", *options[:2]])
    assert isinstance(result.exception, ConfigError)
    assert "Example: segan-monai export onnx" in CliRunner().invoke(app, ["--help"]).stdout
