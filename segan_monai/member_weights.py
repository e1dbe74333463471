# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Files of weights that a run loads: one ``model.pt``, or one per member of an ensemble."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from segan_monai.bundles_by_name import find_bundle
from segan_monai.errors import ConfigError, DataError
from segan_monai.files import sha256_of
from segan_monai.json_files import read_json_object

QUALITY = "quality.json"
"""Name of the quality model's file beside the weights."""
QUALITY_CRITIC = "quality_critic"
"""Name of the folder beside the weights with the critic that estimates the quality of label maps of any origin."""
DOMAINS = "domains.json"
"""Name of the file beside the weights with the intensity profiles of the training domains."""

ENSEMBLE = "ensemble"
"""Key of ``model.json``: ``folder`` beside it and number of ``members`` there, which run instead of the network."""

StrPath = str | os.PathLike[str]


def weight_files(weights: Sequence[StrPath] | StrPath | None, ckpt_dir: StrPath) -> list[Path]:
    """Return the files of weights that a run loads.

    Args:
        weights: a file of weights, or a folder that contains ``model.pt``, such as the output folder of a training; a
            list of them for an ensemble; None for ``model.pt`` in ``ckpt_dir``.
        ckpt_dir: folder of the weights if ``weights`` is None. If it has no ``model.pt`` of its own, the members are
            those of its folders ``fold_0``, ``fold_1`` and so on: a bundle includes an ensemble in this way. If it has
            one, and ``model.json`` beside it names the folder of an ``ensemble``, they are those of that folder, unless
            it is absent.

    Returns:
        One file per member. The file in ``ckpt_dir`` need not exist; loading it says what to do.

    Raises:
        ConfigError: ``weights`` is empty, or names a file or folder without weights; or the folder of an ``ensemble``
            has another number of members than ``model.json`` says.
    """
    if weights is None:
        own = Path(ckpt_dir) / "model.pt"
        return _ensemble_of(own) or ([own] if own.is_file() else _members(Path(ckpt_dir)) or [own])
    given = given_weights(weights)
    if not given:
        raise ConfigError("--weights []: expected one or more files of weights or folders of trainings.")
    return [_file(Path(path).expanduser()) for path in given]


def given_weights(weights: Sequence[StrPath] | StrPath) -> list[StrPath]:
    """Return the value of the key ``weights`` as a list: one path is a list of one."""
    return [weights] if isinstance(weights, str | os.PathLike) else list(weights)


def network_files(ckpt_dir: StrPath) -> list[Path]:
    """Return ``model.pt`` of a folder for what takes one network, such as exports, even if it names an ensemble.

    Args:
        ckpt_dir: see ``weight_files``, whose result this is if the folder has no ``model.pt``.
    """
    own = Path(ckpt_dir) / "model.pt"
    return [own] if own.is_file() else weight_files(None, ckpt_dir)


def initial_file(initial_weights: str | os.PathLike[str]) -> Path:
    """Return the file of the weights with which a training begins.

    Args:
        initial_weights: a file of weights; a folder that contains ``model.pt``, such as the output folder of a
            training; or a bundle, by its folder or name, that includes weights.

    Raises:
        ConfigError: There is no such file, folder or bundle, or no weights in it.
    """
    path = Path(initial_weights).expanduser()
    file = path if path.is_file() else path / "model.pt"
    if file.is_file():
        return file
    try:
        bundle = find_bundle(str(initial_weights))
    except ConfigError as error:
        if path.is_dir():
            problem = "no model.pt in this folder"
        else:
            problem = f"there is no such file or folder; as a bundle: {error}"
        raise ConfigError(
            f"initial_weights {initial_weights}: {problem}. Expected a file of weights, the output folder of a "
            "training, or a bundle that includes weights, such as hippocampus."
        ) from error
    file = network_files(bundle / "models")[0]
    if not file.is_file():
        inside = [str(other.relative_to(bundle)) for other in sorted(bundle.glob("models/**/*.pt"))]
        others = f" It has {', '.join(inside)}: name one of these files in {bundle}." if inside else ""
        raise ConfigError(f"initial_weights {initial_weights}: the bundle includes no weights in {file}.{others}")
    return file


def _members(folder: Path) -> list[Path]:
    return sorted(folder.glob("fold_*/model.pt"))


def _ensemble_of(own: Path) -> list[Path]:
    """Return the members of the ensemble that ``model.json`` names for a network; none for other weights than its."""
    try:
        record = read_json_object(own.with_suffix(".json"))
    except (FileNotFoundError, DataError):  # who reads the settings says so
        return []
    named, digests = record.get(ENSEMBLE), record.get("weights")
    if not isinstance(named, dict) or not isinstance(digests, dict) or not own.is_file():
        return []
    folder = own.parent / Path(str(named.get("folder"))).name
    if not folder.is_dir() or digests.get("sha256") != sha256_of(own):
        return []
    members = _members(folder)
    if len(members) != named.get("members"):
        raise ConfigError(
            f"{folder} has {len(members)} networks; expected the {named.get('members')} that "
            f"{own.with_suffix('.json')} names. Copy the folder again as a whole, or delete it to run {own.name}."
        )
    return members


def split_of(weights: StrPath) -> Path:
    """Return the split with which weights were trained: ``split.json`` beside them.

    Of weights that share a folder, ``split_fold0.json`` belongs to ``fold0.pt``.
    """
    file = Path(weights)
    own = file.with_name(f"split_{file.stem}.json")
    return own if own.is_file() else file.with_name("split.json")


def split_files(weights: Sequence[StrPath] | StrPath | None, ckpt_dir: StrPath) -> str | list[str]:
    """Return the split of the weights that a run loads, or one split per member of an ensemble.

    Args:
        weights: see ``weight_files``.
        ckpt_dir: see ``weight_files``.
    """
    splits = [str(split_of(file)) for file in weight_files(weights, ckpt_dir)]
    return splits[0] if len(splits) == 1 else splits


def _file(path: Path) -> Path:
    file = path / "model.pt" if path.is_dir() else path
    if not file.is_file():
        found = "has no model.pt" if path.is_dir() else "does not exist"
        raise ConfigError(
            f"--weights: {path} {found}. Expected files of weights, or output folders of trainings, such as "
            "--weights \"['fold_0/model.pt','fold_1']\"."
        )
    return file
