# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from segan_monai.cli.verify import verify
from segan_monai.errors import ConfigError
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


@pytest.fixture
def app():
    app = typer.Typer()
    app.command()(verify)
    return app


def test_prints_a_line_a_check(app):
    result = CliRunner().invoke(app, [str(BUNDLES / HIPPOCAMPUS), "--check", "metadata", "--check", "network"])
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["check", "result"],
        ["metadata", "ok"],
        ["network", "ok"],
    ]


def test_status_1_if_one_fails(app):
    arguments = ["--check", "network", "--check", "metadata", "--set", "num_levels=0"]
    result = CliRunner().invoke(app, [str(BUNDLES / HIPPOCAMPUS), *arguments])
    assert result.exit_code == 1
    assert "must all be at least 1" in result.stdout
    assert "metadata  ok" in result.stdout


def test_help_and_bad_usage(app, tmp_path):
    assert "Example: segan-monai verify" in CliRunner().invoke(app, ["--help"]).stdout
    assert CliRunner().invoke(app, [str(tmp_path / "missing")]).exit_code == 2
    result = CliRunner().invoke(app, [str(tmp_path), "--set", "epochs"])
    assert isinstance(result.exception, ConfigError)
    assert "expected KEY=VALUE" in str(result.exception)
