# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The requirements that are declared are those of the code: all of it, and where it runs."""

from __future__ import annotations

import ast
import configparser
import json
import re
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement

from segan_monai import optional
from segan_monai.errors import ConfigError
from tests.packaging.builds import TOP

SETUP = configparser.ConfigParser()
SETUP.read(TOP / "setup.cfg", encoding="utf-8")
KNOWN = packages_distributions()
FILES = sorted((TOP / "segan_monai").rglob("*.py"))
# Required packages that no module here imports
OF_OTHERS = {
    "pyyaml": "monai.bundle reads configs with it",
    "tensorboard": "torch.utils.tensorboard needs it",
}


def names_in(text):
    """Normalized names of the requirements in a list of setup.cfg."""
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return {normal(Requirement(line).name) for line in lines}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def imports(file, at_top):
    """Names of the top-level modules that a file imports: at its top, or anywhere."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).split(".")[0]


def packages_of(modules):
    """Normalized names of the packages that third-party modules belong to."""
    outside = set(modules) - sys.stdlib_module_names - {"segan_monai", "__future__"}
    return {normal(package) for module in outside for package in KNOWN.get(module, [module])}


REQUIRED = names_in(SETUP["options"]["install_requires"])
OF_EXTRAS = {
    normal(Requirement(package).name) for packages in optional.EXTRAS.values() for package in packages.values()
}


@pytest.mark.parametrize("extra", optional.EXTRAS)
def test_messages_name_the_packages_of_the_extra(extra):
    assert names_in(SETUP["options.extras_require"][extra]) == names_in("\n".join(optional.EXTRAS[extra].values()))


def test_what_is_imported_at_the_top_of_a_module_is_required():
    for file in FILES:
        assert packages_of(imports(file, at_top=True)) <= REQUIRED, file


def test_what_is_imported_is_required_or_of_an_extra():
    found = {package for file in FILES for package in packages_of(imports(file, at_top=False))}
    assert found <= REQUIRED | OF_EXTRAS
    assert REQUIRED - found == set(OF_OTHERS)


@pytest.mark.parametrize("bundle", sorted(folder.name for folder in (TOP / "bundles").iterdir() if folder.is_dir()))
def test_metadata_of_bundles_name_required_packages_in_the_tested_versions(bundle):
    metadata = json.loads((TOP / "bundles" / bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    named = {normal(name): version for name, version in metadata["required_packages_version"].items()}
    assert named.pop("segan-monai")
    assert set(named) <= REQUIRED
    lines = (TOP / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    tested = {normal(one.name): str(one.specifier).removeprefix("==") for one in pinned}
    assert {name: tested[name] for name in named} == named
    of_readers = {"simpleitk", "pillow"} & {normal(word) for word in re.findall(r"\w+", metadata["data_type"])}
    assert of_readers <= {*named, "pillow"}


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(optional, "find_spec", lambda name: None if name.startswith("onnx") else object())
    with pytest.raises(ConfigError, match=r"x needs onnx and onnxruntime, which are .*pip install onnx onnxruntime\.$"):
        optional.require_modules("export", "x", ("onnx", "onnxruntime"))
    with pytest.raises(ConfigError, match=r"needs onnx, which is not installed\. Run: pip install onnx, or do y\.$"):
        optional.require_modules("export", "x", ("onnx",), otherwise="do y")
    optional.require_modules("phantoms", "x")
    optional.require_modules("mlflow", "x")
