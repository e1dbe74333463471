# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Importing the components leaves the process as it was, and loads nothing that only a report or a picture needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORT = """
import os, sys, warnings
import monai.bundle, monai.engines, monai.handlers, monai.transforms, torch
before, filters, safe = set(sys.modules), list(warnings.filters), set(torch.serialization.get_safe_globals())
def refused(mask):
    raise AssertionError("the umask is changed")
os.umask = refused
import segan_monai.handlers, segan_monai.data, segan_monai.engines
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
assert warnings.filters == filters
assert set(torch.serialization.get_safe_globals()) == safe
"""


@pytest.mark.slow
def test_what_importing_loads_and_changes():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "segan_monai" in loaded
    assert not loaded & {"jinja2", "markupsafe", "matplotlib", "mlflow", "nilearn", "SimpleITK", "itk"}
