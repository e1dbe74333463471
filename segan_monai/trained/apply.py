# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Use of the settings that a network was trained with, instead of those of a config."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from segan_monai.command_line import config_files, overrides_of
from segan_monai.errors import ConfigError
from segan_monai.member_weights import weight_files
from segan_monai.trained.compare import is_same
from segan_monai.trained.members import require_same_settings
from segan_monai.trained.record import ADJUSTABLE, references, user_settings
from segan_monai.trained.settings_file import read_trained_settings, settings_file

logger = logging.getLogger(__name__)

ALLOWED = "allow_other_settings"


def given_keys(overlays: Collection[str | os.PathLike[str]], overrides: Collection[str]) -> dict[str, str]:
    """Return the top-level keys that a user has set, with the place of each: ``--slice_size`` or an overlay's name.

    Args:
        overlays: config files after the bundle's own.
        overrides: ids set on the command line, such as ``slice_size`` or ``regions#tumour``.
    """
    given = {}
    for file in overlays:
        for name in ConfigParser.load_config_file(file):
            given[_top(name)] = f"{_top(name)} in {file}"
    return {**given, **{_top(name): f"--{_top(name)}" for name in overrides}}


def apply_settings_of_weights(parser: ConfigParser, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Put the trained settings into the config of a run that loads the weights of ``weights`` or ``ckpt_dir``.

    A training loads no such weights, and its config is left as it is.
    The members of an ensemble need the same settings.

    Args:
        parser: the parser of the run.
        arguments: see ``segan_monai.command_line.read_arguments``; empty for a run that was started from Python.

    Returns:
        The keys that have changed, with their new values.

    Raises:
        ConfigError: See ``apply_trained_settings`` and ``require_same_settings``.
    """
    if "training" in parser or "ckpt_dir" not in parser:
        return {}
    given = given_keys(config_files(arguments)[1:], overrides_of(arguments)) if arguments else None
    weights = parser.get_parsed_content("weights") if "weights" in parser else None
    files = weight_files(weights, parser.get_parsed_content("ckpt_dir"))
    require_same_settings(files, given or {})
    return apply_trained_settings(parser, files[0], given)


def apply_trained_settings(
    parser: ConfigParser,
    weights: str | os.PathLike[str],
    given: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Put the settings that weights were trained with into a config, and refuse others that the user has set.

    - A key that the user has not set gets the trained value.
    - A key that follows from others, such as ``"$len(@modalities)"``, is left if it has the trained value or follows
      from a key that may differ.
    - ``regions`` remain a label convention if the network was trained on the regions of one: the label values of
      another data set may be others.
    - ``ADJUSTABLE`` keys keep the value that the user has set.

    Args:
        parser: the parser of the config; it is parsed again if a value changes.
        weights: the file of weights.
        given: keys that the user has set, see ``given_keys``; None if that is unknown. The trained value then
            replaces any other.

    Returns:
        The keys that have changed, with their new values.

    Raises:
        ConfigError: The user has set a key to another value than the trained one, and ``allow_other_settings`` does
            not name it; or ``model.json`` is damaged.
    """
    trained = read_trained_settings(weights)
    config: dict[str, Any] = parser.config  # type: ignore[assignment]
    keys = [key for key in trained if key in user_settings(config)]
    allowed = allowed_keys(parser.get(ALLOWED))
    if not parser.ref_resolver.is_resolved():
        parser.parse()
    refused: dict[str, str] = {}
    kept: set[str] = set()
    changed: dict[str, Any] = {}
    # first the keys that stand for themselves, then those that follow from them
    for derived in (False, True):
        new: dict[str, Any] = {}
        for key in keys:
            sources = references(parser, key)
            if bool(sources) != derived:
                continue
            value = parser.get_parsed_content(key)
            same = is_same(key, value, trained[key])
            adjusted = key in ADJUSTABLE and key in (given or ())
            if same and not (key == "regions" and _needs_label_values(value, key in (given or ()), parser)):
                continue
            if sources & kept:
                kept.add(key)
            elif not same and (adjusted or (key in allowed and (given is None or key in given))):
                kept.add(key)
                logger.warning("%s is %s; the network was trained with %s", key, value, trained[key])
            elif not same and given is not None and key in given:
                refused[key] = f"{given[key]} is {value}, but the network was trained with {trained[key]}"
            else:
                new[key] = trained[key]
        if new:
            parser.update(new)
            parser.parse()
            changed |= new
    if refused:
        raise ConfigError(_refusal(settings_file(weights), refused))
    if changed:
        logger.info("settings of the training, from %s: %s", settings_file(weights), changed)
    return changed


def allowed_keys(value: Any) -> list[str]:
    """Return the keys that ``allow_other_settings`` names: a list, or text with commas."""
    if isinstance(value, str):
        value = value.split(",")
    return [str(name).strip() for name in value or ()]


def _needs_label_values(regions: Any, is_given: bool, parser: ConfigParser) -> bool:
    """Return whether regions are a convention that nobody chose, in a config without cases that tell it."""
    if not isinstance(regions, str) or (is_given and regions != "auto"):
        return False
    label_regions: Any = parser.get("label_regions")
    return not (isinstance(label_regions, Mapping) and "cases" in label_regions)


def _refusal(file: Path, refused: Mapping[str, str]) -> str:
    names = list(refused)
    these = "it" if len(names) == 1 else "them"
    if any(not text.startswith("--") for text in refused.values()):
        these += ", or the whole overlay"
    value = "the trained value is" if len(names) == 1 else "the trained values are"
    return (
        f"{'; '.join(refused.values())} ({file}). Omit {these}: {value} used. For an intended change, "
        f'add --{ALLOWED} "{names}".'
    )


def _top(name: str) -> str:
    return name.lstrip("+%").replace("::", "#").split("#")[0]
