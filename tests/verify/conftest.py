# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import pytest

from segan_monai.verify import run_checks
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "my_segmentation"
    shutil.copytree(BUNDLES / HIPPOCAMPUS, folder, ignore=shutil.ignore_patterns("output", "models"))
    return folder


@pytest.fixture
def edit(bundle):
    """Change the content of one of the bundle's configs."""

    def change(name, function):
        file = bundle / "configs" / name
        content = json.loads(file.read_text(encoding="utf-8"))
        function(content)
        file.write_text(json.dumps(content), encoding="utf-8")

    return change


@pytest.fixture
def result(bundle):
    """Run the named checks, and return the result and the detail of each."""

    def run(*names, **settings):
        return [(check.result, check.detail) for check in run_checks(bundle, names=names, **settings)]

    return run
