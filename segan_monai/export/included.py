# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Weights of trainings, copied into a bundle."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segan_monai.errors import ConfigError
from segan_monai.files import sha256_of, whole_file, writing
from segan_monai.finite import is_finite
from segan_monai.json_files import read_json_object
from segan_monai.member_weights import DOMAINS, ENSEMBLE, QUALITY, QUALITY_CRITIC, network_files, split_of
from segan_monai.networks import read_checkpoint
from segan_monai.quality.file import has_quality_file, read_record, write_record
from segan_monai.trained import changed_files, require_same_settings, settings_file, write_trained_settings

logger = logging.getLogger(__name__)

FOLDS = "folds"
"""Folder of an ensemble that lies beside a network."""


def include_weights(
    trainings: Sequence[str | Path], folder: str | Path, half: bool = False, network: str | Path | None = None
) -> list[Path]:
    """Copy the weights of trainings into a bundle, each with its ``model.json``, ``split.json`` and ``domains.json``.

    ``quality.json`` of each is copied too, for the weights that are written. One training becomes ``model.pt`` in the
    folder, with its ``quality_critic``. Several become an ensemble: ``fold_0/model.pt``, ``fold_1/model.pt`` and so on.
    With ``network``, that becomes ``model.pt``, and the ensemble lies in ``folds``, which ``model.json`` names.

    Args:
        trainings: output folders of trainings, or their files of weights.
        folder: ``models`` of the bundle, or the ``included_weights_dir`` of an overlay; created.
        half: save float32 numbers as float16, in half the space. Loading converts each to the float32 number that it
            is.
        network: training whose network is taken where one is needed, such as for exports; runs take the ensemble.

    Returns:
        The written files of weights.

    Raises:
        ConfigError: a training has no weights, settings or split, or they do not belong together; two trainings are
            the same, or their settings differ; ``quality.json`` is of other weights; a weight is too large for float16;
            or the folder has weights.
        OutputError: a file cannot be written.
    """
    given = [*trainings, *([network] if network is not None else [])]
    files, folder = [_weights_of(Path(training).expanduser()) for training in given], Path(folder)
    if network is not None and len(trainings) < 2:
        raise ConfigError(f"{len(trainings)} training besides the network {network}; expected an ensemble, 2 or more.")
    for file in files:
        for needed in (settings_file(file), split_of(file)):
            if not needed.is_file():
                raise ConfigError(
                    f"{needed} does not exist; expected the settings and the split of the training beside {file}. Give "
                    "the output folder of the training."
                )
        if changed := changed_files(file):
            raise ConfigError(
                f"{', '.join(map(str, changed))}: another file than {settings_file(file)} names, by its SHA-256. Copy "
                "the output folder of the training again as a whole."
            )
    known: dict[str | None, Path] = {}
    for file in files:
        if (other := known.setdefault(sha256_of(file), file)) is not file:
            raise ConfigError(f"{other} and {file} are the same weights; expected different members of an ensemble.")
    require_same_settings(
        files, (), "Do not include them: name these members by --weights of each run, and set --{key} there."
    )
    if found := [file for place in (folder, folder / FOLDS) for file in network_files(place) if file.is_file()]:
        raise ConfigError(f"{folder} has weights, {found[0]}. Move them elsewhere, or give another folder.")
    of_members = folder if network is None else folder / FOLDS
    targets = [folder if len(trainings) == 1 else of_members / f"fold_{number}" for number in range(len(trainings))]
    targets += [folder] if network is not None else []
    # what is refused, before anything is written
    qualities = [read_record([file]) if has_quality_file([file]) else None for file in files]
    states = [_half(file) for file in files] if half else []
    for number, (file, target) in enumerate(zip(files, targets, strict=True)):
        with writing(target):
            target.mkdir(parents=True, exist_ok=True)
        if half:
            with whole_file(target / "model.pt") as temporary:
                torch.save(states[number], temporary)
        else:
            _copy(file, target / "model.pt")
        if (quality := qualities[number]) is not None:
            write_record(target / "model.pt", quality)
        if target == folder and (critic := file.with_name(QUALITY_CRITIC)).is_dir():
            with writing(target / QUALITY_CRITIC):
                shutil.copytree(critic, target / QUALITY_CRITIC, dirs_exist_ok=True)
        _copy(split_of(file), target / "split.json")
        _copy(file.with_name(DOMAINS), target / DOMAINS)
        record = read_json_object(settings_file(file))
        if network is not None and target == folder:
            record[ENSEMBLE] = {"folder": FOLDS, "members": len(trainings)}
        write_trained_settings(target / "model.pt", record)
    written = [target / "model.pt" for target in targets]
    if any(qualities) and not has_quality_file(written):
        logger.warning(
            "results of %s will have no estimate of their quality: expected %s of one fit beside every network. Fit it "
            "again with segan-monai fit-quality, with --output-dir for the folder of every network",
            folder,
            QUALITY,
        )
    return written


def _weights_of(training: Path) -> Path:
    file = training / "model.pt" if training.is_dir() else training
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; expected the output folder of a finished training, with model.pt.")
    return file


def _copy(file: Path, target: Path) -> None:
    """Copy a file if it exists."""
    if file.is_file():
        with whole_file(target) as temporary:
            shutil.copyfile(file, temporary)


def _half(file: Path) -> dict[str, Any]:
    """Return the weights of a file with float32 numbers as float16."""
    content = read_checkpoint(file)
    weights = content.get("model", content)
    state = {name: value.half() if value.dtype == torch.float32 else value for name, value in weights.items()}
    for name, value in state.items():
        if not is_finite(value):
            raise ConfigError(
                f"{file}: weight '{name}' has numbers up to {weights[name].abs().max():.3g}; expected at most 65504, "
                "the largest of float16. Include the weights without --half."
            )
    return state
