# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""``quality.json``: the model of quality beside weights, as plain values with the settings of its fit."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, DataError
from segan_monai.files import sha256_of
from segan_monai.json_files import read_json_object, write_json
from segan_monai.member_weights import QUALITY, StrPath
from segan_monai.quality.estimate import QualityModel

logger = logging.getLogger(__name__)

VERSION = 1
_LATER = {"case_statistics": 0.0, "region_rules": None}
"""Settings that files of earlier versions lack, and what these versions did."""
_WITHOUT_EFFECT = "members"
"""Setting of a run that need not be that of the fit: a model of single networks serves their ensemble too."""
_AGAIN = "Fit it again with segan-monai fit-quality, or delete it."


def quality_file(weights: StrPath) -> Path:
    """Return the place of ``quality.json``, beside a file of weights."""
    return Path(weights).with_name(QUALITY)


def has_quality_file(weights: Sequence[StrPath]) -> bool:
    """Return whether a run of these weights can estimate its quality: all have one model beside them.

    Raises:
        ConfigError: ``quality.json`` of a member of an ensemble is damaged.
    """
    files = [quality_file(file) for file in weights]
    if not all(file.is_file() for file in files) or len({*files}) < len(files):
        return False
    return len(files) == 1 or not _others([_content(file) for file in files])


def can_estimate_quality(weights: Sequence[StrPath], settings: Mapping[str, Any]) -> bool:
    """Return whether a run of these weights and settings can estimate its quality.

    Warn if its settings are others than those of the fit, or if only some members of an ensemble have a model.

    Args:
        weights: files of weights of the run.
        settings: settings of the run, see ``read_quality``.

    Raises:
        ConfigError: ``quality.json`` is damaged.
    """
    if not has_quality_file(weights):
        _warn_of_missing(weights)
        return False
    file = quality_file(weights[0])
    difference = _difference(_content(file)["settings"], settings, "this run")
    if difference:
        logger.warning("%s was made with %s. Results have no estimate of their quality.", file, difference)
    return not difference


def _warn_of_missing(weights: Sequence[StrPath]) -> None:
    """Log which members of an ensemble lack the model that others have."""
    files = [quality_file(file) for file in weights]
    missing = [str(file.parent) for file in files if not file.is_file()]
    if 0 < len(missing) < len(files):
        logger.warning(
            "no %s in %s, but beside other members of the ensemble. Results have no estimate of their quality. Fit it "
            "with segan-monai fit-quality, with --output-dir for the folder of every member, see docs/quality.md.",
            QUALITY,
            ", ".join(missing),
        )


def write_quality(weights: StrPath, model: QualityModel, settings: Mapping[str, Any], fit: Mapping[str, Any]) -> Path:
    """Write a model beside weights, and return its file.

    Args:
        weights: file of the weights that the model is for. Other weights at its place are refused.
        model: result of ``fit_quality``.
        settings: settings of the inference whose results the model was fitted to.
        fit: what the fit says of itself: cases, folders, measures.

    Raises:
        OutputError: The file cannot be written.
    """
    return write_record(
        weights, {"version": VERSION, "settings": dict(settings), "model": model.record(), "fit": dict(fit)}
    )


def write_record(weights: StrPath, record: Mapping[str, Any]) -> Path:
    """Write the content of a ``quality.json`` beside weights, for which it shall hold, and return its file.

    Args:
        weights: file of the weights of the fit, or of the same networks in another form: as float16, or an ensemble in
            one file.
        record: result of ``read_record``.

    Raises:
        OutputError: The file cannot be written.
    """
    file = quality_file(weights)
    write_json(file, {**record, "weights_sha256": sha256_of(Path(weights))}, allow_nan=False)
    return file


def read_quality(weights: Sequence[StrPath], settings: Mapping[str, Any]) -> QualityModel:
    """Read the model for a run with the given weights and settings.

    The model is fitted to single networks. Its estimates for their ensemble have been measured, see
    ``docs/quality.md``.

    Args:
        weights: files of weights of the run: one, or the members of an ensemble.
        settings: settings of the run, plain values; the same names as in ``write_quality``.

    Raises:
        ConfigError: See ``read_record``; or the settings differ.
    """
    content = read_record(weights)
    file = quality_file(weights[0])
    remedy = "Set --estimate_quality false, or fit it again under these settings."
    require_settings(content["settings"], settings, str(file), remedy)
    try:
        return QualityModel.of_record(content["model"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{file} has no complete 'model' ({type(error).__name__}: {error}). {_AGAIN}") from error


def read_record(weights: Sequence[StrPath]) -> dict[str, Any]:
    """Read the content of ``quality.json`` beside weights, that of the first if there are several.

    Raises:
        ConfigError: ``quality.json`` does not exist beside one of the weights, is damaged, was written by another
            version or for other weights; or members of an ensemble have different models.
    """
    contents = []
    for member in map(Path, weights):
        content = _content(quality_file(member), len(weights) > 1)
        if content.get("weights_sha256") != sha256_of(member):
            raise ConfigError(
                f"{quality_file(member)} was fitted for other weights than {member.name}; expected those of the fit "
                f"(SHA-256 {content.get('weights_sha256')}). Set --estimate_quality false, or fit it again with "
                "segan-monai fit-quality."
            )
        contents.append(content)
    for number in _others(contents):
        raise ConfigError(
            f"{quality_file(weights[number])} has another model or other settings than {quality_file(weights[0])}; "
            "expected one fit for all members of the ensemble. Set --estimate_quality false, or fit again with "
            "segan-monai fit-quality, with --output-dir for the folder of every member."
        )
    return contents[0]


def _content(file: Path, of_member: bool = True) -> dict[str, Any]:
    every = ", with --output-dir for the folder of every member of the ensemble" if of_member else ""
    missing = (
        f"{file} does not exist; an estimate of quality needs it. Fit it with segan-monai fit-quality{every}, or set "
        "--estimate_quality false."
    )
    return read_fit(file, VERSION, missing, _AGAIN)


def _others(contents: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return which of several contents have another model or other settings than the first."""
    first, *_ = fits = [(content.get("model"), content["settings"]) for content in contents]
    return [number for number, fit in enumerate(fits) if fit != first]


def read_fit(file: Path, version: int, missing: str, again: str) -> dict[str, Any]:
    """Read the record of a fit beside weights.

    Args:
        file: JSON file with ``version`` and ``settings``, and what else the fit wrote.
        version: the version that is read.
        missing: message if the file does not exist.
        again: sentence that ends the message if it cannot be used.

    Raises:
        ConfigError: The file does not exist, is damaged or of another version, or has no settings.
    """
    try:
        content = read_json_object(file, again)
    except FileNotFoundError as error:
        raise ConfigError(missing) from error
    except DataError as error:
        raise ConfigError(str(error)) from error
    if content.get("version") != version:
        raise ConfigError(f"{file} has version {content.get('version')!r}; expected {version}. {again}")
    if not isinstance(content.get("settings"), dict):
        raise ConfigError(f"{file} has no 'settings'; expected an object. {again}")
    return content


def require_settings(
    fitted: Mapping[str, Any], other: Mapping[str, Any], name: str, remedy: str, of_other: str = "this run"
) -> None:
    """Check that two sets of settings are equal, but for the number of networks.

    Settings that earlier versions did not have may be missing.

    Args:
        fitted: settings under which a file was made.
        other: those that are expected.
        name: the file.
        remedy: sentence that ends the message.
        of_other: what has the expected settings.

    Raises:
        ConfigError: They differ; the message names the first difference.
    """
    if difference := _difference(fitted, other, of_other):
        raise ConfigError(f"{name} was made with {difference}. {remedy}")


def _difference(fitted: Mapping[str, Any], other: Mapping[str, Any], of_other: str) -> str:
    """Return the first difference of two sets of settings in words; empty if they are equal."""
    first, second = (json.loads(json.dumps({**_LATER, **settings})) for settings in (fitted, other))
    for key in [*first, *(key for key in second if key not in first)]:
        if key != _WITHOUT_EFFECT and first.get(key) != second.get(key):
            return f"{key} {json.dumps(first.get(key))}; expected {json.dumps(second.get(key))} as in {of_other}"
    return ""
