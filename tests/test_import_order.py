# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Which package of ``segan_monai`` imports which, and which third-party libraries the tensor code needs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1] / "segan_monai"

# A package imports packages from rows above its own, so there is no cycle. Modules directly in `segan_monai`, such as
# `errors` and `files`, are below all packages: each may import them, and they import only each other.
MAY_IMPORT: dict[str, set[str]] = {
    "networks": set(),
    "losses": {"networks"},
    "transforms": set(),
    "simulation": set(),
    "data": {"simulation"},
    "metrics": {"data"},
    "trained": {"data"},
    "engines": {"losses", "networks"},
    "inferers": {"networks", "transforms"},
    "quality": {"inferers", "transforms"},
    "quality_critic": {"metrics", "networks", "quality", "trained", "transforms"},
    "report": {"data", "metrics"},
    "pictures": {"inferers", "metrics", "networks", "report", "transforms"},
    "handlers": {
        "data", "inferers", "metrics", "networks", "pictures", "quality", "report", "trained", "transforms",
    },
    "check": {"data", "trained", "transforms"},
    "run": {"check", "data", "trained"},
    "export": {"check", "inferers", "networks", "quality", "trained", "transforms"},
    "label_bundle": {"check", "data", "quality", "trained"},
    "new_bundle": {"data", "label_bundle", "networks", "transforms"},
    "prepare": {"check", "data", "run", "transforms"},
    "ensembles": {"data", "metrics", "trained", "transforms"},
    "dicom": {"data", "pictures", "prepare", "transforms"},
    "reproduce": {"check", "data", "metrics", "quality", "run", "transforms"},
    "sweep": {"check", "report", "reproduce"},
    "folds": {"check", "data", "ensembles", "handlers", "metrics", "quality", "reproduce", "trained", "transforms"},
    "verify": {"data", "export", "networks", "quality", "simulation", "trained"},
    "cli": {
        "check", "data", "dicom", "ensembles", "export", "folds", "metrics", "new_bundle", "prepare", "quality",
        "quality_critic", "report", "reproduce", "run", "simulation", "sweep", "trained", "transforms", "verify",
    },
}  # fmt: skip

# Third-party libraries beside torch and MONAI of the packages that work on tensors.
LIBRARIES: dict[str, set[str]] = {
    "networks": {"numpy", "scipy"},
    "losses": set(),
    "engines": {"ignite"},
    "inferers": set(),
    "quality": {"numpy", "pandas", "scipy"},
    "quality_critic": {"numpy", "tqdm"},
    "transforms": {"PIL", "nibabel", "numpy", "scipy"},
    "metrics": {"ignite", "numpy", "pandas", "scipy", "tqdm"},
}


def imported_by(file: Path) -> Iterator[str]:
    """Names of the modules that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            if node.module == "segan_monai":
                yield from (f"segan_monai.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def files_of(name: str) -> list[Path]:
    """Source files of a package or of a single module."""
    return sorted((TOP / name).rglob("*.py")) if (TOP / name).is_dir() else [TOP / f"{name}.py"]


def packages_imported_by(name: str) -> set[str]:
    """Rows of the table that a package or module imports, without itself."""
    modules = {module for file in files_of(name) for module in imported_by(file)}
    return {module.split(".")[1] for module in modules if module.startswith("segan_monai.")} & set(MAY_IMPORT) - {name}


def test_every_package_has_a_row():
    packages = {file.parent.name for file in TOP.glob("*/__init__.py")}
    assert packages == set(MAY_IMPORT) - {"label_bundle"}


def test_a_row_names_only_rows_above_it():
    above: set[str] = set()
    for name, others in MAY_IMPORT.items():
        assert others <= above, f"{name} stands too high for {others - above}"
        above.add(name)


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_each_package_imports_what_its_row_says(name):
    assert packages_imported_by(name) == MAY_IMPORT[name]


def test_single_modules_import_no_package():
    modules = {file.stem for file in TOP.glob("*.py")} - {"__init__", "__main__", *MAY_IMPORT}
    assert modules
    assert {name: packages_imported_by(name) for name in modules} == {name: set() for name in modules}


@pytest.mark.parametrize("name", LIBRARIES)
def test_tensor_code_needs_few_libraries(name):
    libraries = {module.split(".")[0] for file in files_of(name) for module in imported_by(file)}
    known = {*sys.stdlib_module_names, "segan_monai", "torch", "monai"}
    assert libraries - known == LIBRARIES[name]


def test_nothing_imports_tests_scripts_or_bundles():
    for name in (*MAY_IMPORT, *(file.stem for file in TOP.glob("*.py"))):
        for file in files_of(name):
            assert not {module.split(".")[0] for module in imported_by(file)} & {"bundles", "scripts", "tests"}, file
