# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""``quality.json``: the model of quality beside weights, as plain values with the settings of its fit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, DataError
from segan_monai.files import sha256_of
from segan_monai.json_files import read_json_object, write_json
from segan_monai.member_weights import QUALITY
from segan_monai.quality.estimate import QualityModel

VERSION = 1
_LATER = {"case_statistics": 0.0, "region_rules": None}
"""Settings that files of earlier versions lack, and what these versions did."""
_AGAIN = "Fit it again with segan-monai fit-quality, or delete it."


def quality_file(weights: Sequence[str | os.PathLike[str]]) -> Path:
    """Return the place of ``quality.json``, beside the weights of a run.

    Raises:
        ConfigError: The run is an ensemble: a model is fitted to the predictions of single networks, not to their mean.
    """
    if len(weights) > 1:
        raise ConfigError(
            f"estimate_quality: the run has {len(weights)} weights; expected one network, because {QUALITY} is fitted "
            "to the predictions of single networks. Set --estimate_quality false."
        )
    return Path(weights[0]).with_name(QUALITY)


def has_quality_file(weights: Sequence[str | os.PathLike[str]]) -> bool:
    """Return whether a run of these weights can estimate its quality: one network, with ``quality.json`` beside it."""
    return len(weights) == 1 and quality_file(weights).is_file()


def write_quality(
    weights: str | os.PathLike[str], model: QualityModel, settings: Mapping[str, Any], fit: Mapping[str, Any]
) -> Path:
    """Write a model beside weights, and return its file.

    Args:
        weights: file of the weights that the model is for. Other weights at its place are refused.
        model: result of ``fit_quality``.
        settings: settings of the inference whose results the model was fitted to.
        fit: what the fit says of itself: cases, folders, measures.

    Raises:
        OutputError: The file cannot be written.
    """
    file = quality_file([weights])
    content = {
        "version": VERSION,
        "weights_sha256": sha256_of(Path(weights)),
        "settings": dict(settings),
        "model": model.record(),
        "fit": dict(fit),
    }
    write_json(file, content, indent=1, allow_nan=False)
    return file


def read_quality(weights: Sequence[str | os.PathLike[str]], settings: Mapping[str, Any]) -> QualityModel:
    """Read the model for a run with the given weights and settings.

    Args:
        weights: files of weights of the run, which must be one.
        settings: settings of the run, plain values; the same names as in ``write_quality``.

    Raises:
        ConfigError: There are several weights; ``quality.json`` does not exist beside them, is damaged, or was written
            by another version; or its weights or settings differ.
    """
    file = quality_file(weights)
    missing = (
        f"{file} does not exist, and estimate_quality is true. Fit it with segan-monai fit-quality, or set "
        "--estimate_quality false."
    )
    content = read_fit(file, VERSION, missing, _AGAIN)
    if content.get("weights_sha256") != sha256_of(Path(weights[0])):
        raise ConfigError(
            f"{file} was fitted for other weights than {Path(weights[0]).name}; expected those of the fit "
            f"(SHA-256 {content.get('weights_sha256')}). Set --estimate_quality false, or fit it again with "
            "segan-monai fit-quality."
        )
    remedy = "Set --estimate_quality false, or fit it again under these settings."
    require_settings(content["settings"], settings, str(file), remedy)
    try:
        return QualityModel.of_record(content["model"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{file} has no complete 'model' ({type(error).__name__}: {error}). {_AGAIN}") from error


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


def require_settings(fitted: Mapping[str, Any], other: Mapping[str, Any], name: str, remedy: str) -> None:
    """Check that two sets of settings are equal. Settings that earlier versions did not have may be missing.

    Raises:
        ConfigError: They differ; the message names the first difference.
    """
    first, second = (json.loads(json.dumps({**_LATER, **settings})) for settings in (fitted, other))
    for key in [*first, *(key for key in second if key not in first)]:
        if first.get(key) != second.get(key):
            raise ConfigError(
                f"{name} was made with {key} {json.dumps(first.get(key))}; expected {json.dumps(second.get(key))} as "
                f"in this run. {remedy}"
            )
