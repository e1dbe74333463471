# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from segan_monai.cli.phantoms import phantoms
from segan_monai.errors import ConfigError


@pytest.fixture
def app():
    app = typer.Typer()
    app.command()(phantoms)
    return app


def test_writes_a_data_set_and_says_that_it_is_simulated(app, tmp_path):
    folder = tmp_path / "made"
    settings = ["--cases", "2", "--spacing", "8", "--layout", "msd", "--seed", "1", "--workers", "1"]
    result = CliRunner().invoke(app, [str(folder), *settings, "--no-mass-effect"])
    assert result.exit_code == 0
    assert result.stdout.strip() == f"2 simulated phantoms (layout msd, no patients) written to {folder}"
    assert len(list((folder / "labelsTr").iterdir())) == 2
    assert "--seed 1 --spacing 8.0 --layout msd --no-mass-effect" in (folder / "README.txt").read_text(encoding="utf-8")


def test_help_shows_an_example(app):
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "Example: segan-monai phantoms" in result.stdout


def test_an_unknown_layout_is_the_users_error(app, tmp_path):
    result = CliRunner().invoke(app, [str(tmp_path), "--layout", "brats1999"])
    assert isinstance(result.exception, ConfigError)
    assert "expected one of brats2015" in str(result.exception)


def test_no_cases_is_wrong_usage(app, tmp_path):
    assert CliRunner().invoke(app, [str(tmp_path), "--cases", "0"]).exit_code == 2
