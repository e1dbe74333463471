# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil

import pytest

from tests.packaging.builds import TOP, build, copy_checkout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A copy of the checkout."""
    if not (TOP / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the list of files comes from git")
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def wheel(checkout, tmp_path_factory):
    """The wheel of the checkout."""
    return build("build_wheel", checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(checkout, tmp_path_factory):
    """The source archive of the checkout."""
    return build("build_sdist", checkout, tmp_path_factory.mktemp("sdist"))
