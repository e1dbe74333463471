# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Container definitions name files and extras that exist. No container is built here."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
CONTAINERS = TOP / "containers"
DOCKER = (CONTAINERS / "Dockerfile").read_text(encoding="utf-8")
APPTAINER = (CONTAINERS / "segan-monai.def").read_text(encoding="utf-8")


def test_both_take_the_same_files_and_these_exist():
    ignored = (CONTAINERS / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    taken = set(re.findall(r"^!(.+)$", ignored, re.MULTILINE))
    section = APPTAINER.partition("%files\n")[2].partition("\n%")[0]
    assert set(re.findall(r"^ +(\S+) /source/\1$", section, re.MULTILINE)) == taken
    assert all((TOP / name).exists() for name in taken)
    assert "\nCOPY . .\n" in DOCKER


def test_both_have_the_same_python_and_extras():
    (extras,) = {*re.findall(r"^ARG EXTRAS=(.+)$", DOCKER, re.MULTILINE)} & {
        *re.findall(r"^ +EXTRAS=(.+)$", APPTAINER, re.MULTILINE)
    }
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    assert set(extras.split(",")) <= set(setup["options.extras_require"])
    version = re.findall(r"^ARG PYTHON=(.+)$", DOCKER, re.MULTILINE)[0]
    assert f"From: python:{version}-slim" in APPTAINER


def test_torch_has_one_pinned_version():
    pinned = [line for line in (TOP / "constraints.txt").read_text(encoding="utf-8").splitlines() if "torch==" in line]
    assert [line for line in pinned if line.startswith("torch==")] == [pinned[0]]
    assert " " not in pinned[0], "a marker would be no word of pip's command line"


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", CONTAINERS / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
