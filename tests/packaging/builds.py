# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Builds of wheels and source archives, by the interface that pip and build use, and environments with a wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement

TOP = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def versioned_files() -> list[str]:
    """Files under version control or new, relative to the top; links are not followed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted(name for name in listed.stdout.split("\0") if name and (TOP / name).exists())


def copy_checkout(target: Path) -> Path:
    """Copy the checkout without what git ignores, so that builds leave nothing behind."""
    for name in versioned_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TOP / name, target / name, follow_symlinks=False)
    return target


def without_checkout() -> dict[str, str]:
    """Environment variables without those that lead Python to the checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def try_build(hook: str, source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Call a hook of the build backend in a process of its own: ``build_wheel``, ``build_sdist``..."""
    target.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", BUILD, hook, str(target)]
    return subprocess.run(command, cwd=source, env=without_checkout(), capture_output=True, text=True, check=False)


def build(hook: str, source: Path, target: Path) -> Path:
    """Build a wheel or source archive; return its file."""
    done = try_build(hook, source, target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target / done.stdout.splitlines()[-1]


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a source archive; return its top folder."""
    with tarfile.open(archive) as content:
        content.extractall(target, filter="data")
    return next(target.iterdir())


def metadata_of(wheel: Path) -> Message:
    """Metadata of a wheel; the long description is the payload."""
    with ZipFile(wheel) as content:
        name = next(name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(content.read(name).decode("utf-8"))


def needed(wheel: Path, extras: set[str]) -> dict[str, Distribution]:
    """Installed distributions that pip would install with a wheel and some of its extras, by normalized name."""
    found: dict[str, Distribution] = {}
    wanted = [(Requirement(text), extras) for text in metadata_of(wheel).get_all("Requires-Dist", [])]
    seen = set()
    while wanted:
        requirement, of_parent = wanted.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in of_parent | {""}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if (name, *sorted(requirement.extras)) in seen:
            continue
        seen.add((name, *sorted(requirement.extras)))
        try:
            found[name] = distribution(requirement.name)
        except PackageNotFoundError as error:
            raise AssertionError(f"{requirement} is required but not installed") from error
        wanted += [(Requirement(text), set(requirement.extras)) for text in found[name].requires or ()]
    return found


def make_environment(folder: Path, wheel: Path, extras: set[str]) -> Path:
    """Create what ``pip install WHEEL[EXTRAS]`` creates in a new environment, without downloads.

    The dependencies are links to the files of the running environment: those that the wheel requires, and no others.
    pip then checks the requirements and installs the wheel.

    Returns:
        The folder of the environment's programs.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for one in needed(wheel, extras).values():
        for file in one.files or ():
            if ".." not in file.parts:  # programs in bin
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                (site / file).symlink_to(Path(str(one.locate_file(file))).resolve())
    asked = f"{wheel}[{','.join(sorted(extras))}]" if extras else str(wheel)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--isolated", "--disable-pip-version-check"]
    command = [*pip, "install", "--no-index", asked]
    done = subprocess.run(command, cwd=folder, env=without_checkout(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site / "segan_monai" / "__init__.py").is_file(), done.stdout
    return python.parent
