# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Finds the bundles and overlays of this package by name, from any folder."""

from __future__ import annotations

from pathlib import Path

from segan_monai.errors import ConfigError
from segan_monai.json_files import read_json_object
from segan_monai.nearest import nearest

# Links to ``bundles`` and ``configs`` in a checkout, copies in an installed package
BUNDLES = (Path(__file__).parent / "bundles").resolve()
CONFIGS = (Path(__file__).parent / "configs").resolve()


def bundle_names() -> list[str]:
    """Return the names of the bundles of this package, sorted."""
    return sorted(file.parent.parent.name for file in BUNDLES.glob("*/configs/metadata.json"))


def find_bundle(name: str) -> Path:
    """Return the folder of a bundle.

    Args:
        name: path of a bundle's folder, name of a bundle of this package, or the first letters of one such name.

    Raises:
        ConfigError: There is no such bundle, or several names begin with these letters.
    """
    folder = Path(name).expanduser()
    if name and (folder / "configs").is_dir():
        return folder
    known = bundle_names()
    found = [name] if name in known else [other for other in known if other.startswith(name)]
    if len(found) == 1:
        return BUNDLES / found[0]
    if found and name:
        raise ConfigError(f"several bundles begin with '{name}': {', '.join(found)}. Type more of the name.")
    if name and folder.is_dir():
        raise ConfigError(
            f"{name} is not a bundle: it has no folder configs. Expected the folder of a bundle or of a training run, "
            f"or one of {', '.join(known)}."
        )
    near = _nearest(name, known)
    raise ConfigError(
        f"there is no bundle '{name}'. {f'Did you mean {near}? ' if near else ''}Expected one of {', '.join(known)}, "
        "or the folder of a bundle or of a training run."
    )


def bundle_of_run(folder: Path) -> Path:
    """Return the folder of the bundle that a run has used, as recorded in its ``run.json``.

    Args:
        folder: output folder of the run.

    Raises:
        ConfigError: The bundle is neither where it was nor a bundle of this package.
        DataError: ``run.json`` is damaged.
    """
    record = read_json_object(folder / "run.json", "Give the bundle by name, and the run as --ckpt_dir.")
    root, name = str(record.get("config", {}).get("bundle_root", "")), str(record.get("bundle", ""))
    if root and (Path(root) / "configs").is_dir():
        return Path(root)
    if name in bundle_names():
        return BUNDLES / name
    raise ConfigError(
        f"{folder}/run.json names the bundle '{name or root}', which is not found. Give the bundle's folder instead of "
        f"{folder}, and add --ckpt_dir {folder}."
    )


def find_bundle_or_run(name: str) -> tuple[Path, Path | None]:
    """Return the folder of a bundle, and that of its run or weights if the name is such a folder.

    Args:
        name: as of ``find_bundle``; output folder of a run; or folder of weights, whose ``model.json`` names their
            bundle.

    Raises:
        ConfigError: There is no such bundle, see ``find_bundle`` and ``bundle_of_run``.
        DataError: ``run.json`` or ``model.json`` is damaged.
    """
    run = Path(name).expanduser()
    if name and (run / "run.json").is_file():
        return bundle_of_run(run), run
    if name and (run / "model.json").is_file() and not (run / "configs").is_dir():
        return _bundle_of_weights(run), run
    return find_bundle(name), None


def _bundle_of_weights(folder: Path) -> Path:
    """Return the folder of the bundle of weights, as recorded in ``model.json``.

    Raises:
        ConfigError: It is no bundle of this package.
        DataError: ``model.json`` is damaged.
    """
    remedy = f"Give the bundle, and add --ckpt_dir {folder}."
    name = str(read_json_object(folder / "model.json", remedy).get("bundle", ""))
    if name not in bundle_names():
        raise ConfigError(
            f"{folder}/model.json names the bundle '{name}'; expected one of {', '.join(bundle_names())}. {remedy}"
        )
    return BUNDLES / name


def find_overlay(name: str | Path, bundle: Path | None = None) -> Path:
    """Return the file of an overlay.

    Args:
        name: path of a file, or name of a file in ``configs`` of the bundle or of this package: ``cpu.json``, ``cpu``
            or ``configs/cpu.json``.
        bundle: folder of the bundle.

    Raises:
        ConfigError: There is no such file.
    """
    path = Path(name)
    places = [Path(), *([bundle / "configs"] if bundle else []), CONFIGS, CONFIGS.parent]
    names = [path] if path.suffix else [path, path.with_suffix(".json")]
    for file in (place / name for place in places for name in names):
        if file.is_file():
            return file
    known = [f"configs/{file.name}" for file in sorted(CONFIGS.glob("*.json"))]
    raise ConfigError(f"there is no config {name}. Give a JSON file of yours, or one of {', '.join(known)}.")


def _nearest(name: str, known: list[str]) -> str:
    """Return the bundles whose first words are similar to that of ``name``."""
    by_first_word = {other.split("_")[0]: other for other in known}
    return " or ".join(by_first_word[word] for word in nearest(name.split("_")[0].lower(), by_first_word))
