# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from segan_monai import __version__
from segan_monai.cli.main import app

SCRIPT = f"""
import runpy, sys
sys.argv = [{shutil.which("segan-monai")!r}, *sys.argv[1:]]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("loaded", sorted({{"torch", "monai", "pandas"}} & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["check", "--help"], ["prepare", "--help"]])
def test_help_does_not_wait_for_pytorch(arguments):
    shown = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True)
    assert "Usage: segan-monai" in shown.stdout
    assert "loaded []" in shown.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_the_package_is_a_command_that_does_not_wait_for_pytorch(arguments):
    command = [sys.executable, "-X", "importtime", "-m", "segan_monai", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "segan-monai" in shown.stdout
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "segan_monai.cli.main" in imported
    assert not {"torch", "monai", "pandas"} & imported


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"segan-monai {__version__}\n")


@pytest.mark.slow
def test_components_are_registered_at_the_first_use_of_the_package():
    code = """
import sys
sys.argv = ["segan-monai"]
import segan_monai
assert "torch" not in sys.modules
network = segan_monai.networks.SegANSegmentor
from monai.bundle import ConfigParser
content = {"_target_": "SegANSegmentor", "in_channels": 1, "out_channels": 2, "base_channels": 4}
assert type(ConfigParser({"network": content}).get_parsed_content("network")) is network
try:
    segan_monai.no_such_name
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "module 'segan_monai' has no attribute 'no_such_name'"


@pytest.mark.slow
def test_importing_the_package_registers_components_before_monai_is_imported_by_a_script():
    code = """
import segan_monai
from monai.bundle import ConfigParser
content = {"_target_": "MultiScaleL1Loss"}
print(type(ConfigParser({"loss": content}).get_parsed_content("loss")).__module__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "segan_monai.losses.multi_scale_l1"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("output", [["--output-dir=~/made #1"], ["--output-dir", "~/made #1"]])
def test_home_is_expanded_in_a_command(home, output):
    (home / "labels").mkdir()
    result = CliRunner().invoke(app, ["evaluate", "--predictions=~/labels", "--references", "~/labels", *output])
    assert str(home / "labels") in str(result.exception), "the folder was found, and is empty"
    assert not (home / "~").exists()


def test_home_is_expanded_in_a_nested_command(home):
    result = CliRunner().invoke(app, ["prepare", "msd", "~/none", "~/prepared"])
    assert str(home / "none") in str(result.exception)


def test_other_words_stay_as_they_are(home):
    result = CliRunner().invoke(app, ["check", "training", "--config_file", "a~/b.json"])
    assert "config file a~/b.json: there is no such file" in result.output
