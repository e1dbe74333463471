# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Importing the package leaves the process as it was, and loads no library that only some of its functions need."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORT = """
import os, sys, warnings
import monai.bundle
before = set(sys.modules)
import monai.engines, monai.handlers, monai.transforms, torch
filters, safe = list(warnings.filters), set(torch.serialization.get_safe_globals())
def refused(mask):
    raise AssertionError("the umask is changed")
os.umask = refused
import segan_monai
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
assert warnings.filters == filters
assert set(torch.serialization.get_safe_globals()) == safe
"""

# Only some functions need these. Those that `import monai.bundle` loads by itself are not counted.
NOT_LOADED = {"SimpleITK", "itk", "jinja2", "markupsafe", "matplotlib", "mlflow", "nilearn", "onnx", "pandas"}


@pytest.mark.slow
def test_what_importing_loads_and_changes():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "segan_monai" in loaded
    assert loaded & NOT_LOADED == set()
