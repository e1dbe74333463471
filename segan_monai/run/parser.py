# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Access to the parser of the running config: its settings, and correction of misread values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser

from segan_monai.callers import calling
from segan_monai.data.unlabeled import is_labelled_in_part, without_label
from segan_monai.errors import ConfigError
from segan_monai.trained import record_of_training, user_settings
from segan_monai.typed import config_values, is_path_key, typed_values


def run_settings() -> dict[str, Any]:
    """Return the run's values of the user settings, which are the config keys above ``initialize``.

    Use it in an expression of the config itself: ``$segan_monai.run_settings()``. Functions and section titles (keys
    that begin with ``_``) are omitted.

    Raises:
        ConfigError: The function is called from Python and not from a config.
    """
    parser = _running("run_settings")
    config: dict[str, Any] = parser.config  # type: ignore[assignment]
    values = {name: parser.get_parsed_content(name) for name in user_settings(config)}
    return {name: value for name, value in values.items() if not callable(value)}


def trained_settings() -> dict[str, Any]:
    """Return what the network of this training depends on, for ``model.json``; see ``record_of_training``.

    Use it in an expression of the config itself: ``$segan_monai.trained_settings()``.

    Raises:
        ConfigError: The function is called from Python and not from a config.
    """
    return record_of_training(_running("trained_settings"))


def unlabeled_cases() -> list[dict[str, Any]]:
    """Return the cases of the split of this training that are unlabelled, and without labels those labelled in part.

    With ``ignore_label``, every label map may be known in part.

    Use it in an expression of the config itself: ``$segan_monai.unlabeled_cases()``. A reference ``@split`` would be
    resolved even where its value is not used, and so read a data set in place of which MONAI Label gives its own cases.

    Raises:
        ConfigError: The function is called from Python and not from a config; or the training cases are not those of
            the split, as in MONAI Label.
    """
    parser = _running("unlabeled_cases")
    if "split" not in str(parser["train#dataset#data"]):
        raise ConfigError(
            "the program that runs this config gives its own training cases, so there are no unlabelled ones. Set "
            "unlabeled to ignore, and consistency_weight, unpaired_weight and patch_weight to 0."
        )
    split = parser.get_parsed_content("split")
    ignores = parser.get("ignore_label") is not None
    in_part = [without_label(case) for case in split["training"] if ignores or is_labelled_in_part(case)]
    return [*split.get("unlabeled", ()), *in_part]


def _running(function: str) -> ConfigParser:
    """Return the parser of this run for a function of configs, or refuse a call from elsewhere."""
    parser = parser_of_this_run()
    if parser is None:
        raise ConfigError(f"{function}() was called from Python; expected an expression in a config.")
    return parser


def parser_of_this_run() -> ConfigParser | None:
    """Return the parser whose config is being evaluated, found on the call stack; MONAI does not pass it on."""
    return calling(ConfigParser)


def set_typed_values(
    parser: ConfigParser, files: Mapping[str, Any] | None, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Restore the typed values in a parsed config where ``monai.bundle`` has misread them.

    This runs as the first item of ``initialize``, when only the arguments of ``start_run`` have been resolved; these
    are resolved again.

    Args:
        parser: parser of the run.
        files: content of the config files; None for a run from Python, where ``::`` in a path is assumed to be a ``#``
            that MONAI has replaced.
        overrides: see ``typed_values``.

    Returns:
        The typed values, for the run's record.
    """
    if files is None:
        config: dict[str, Any] = parser.config  # type: ignore[assignment]
        files = {
            name: value.replace("::", "#") if isinstance(value, str) and is_path_key(name) else value
            for name, value in config.items()
        }
    typed = typed_values(files, overrides)
    changed = {name: value for name, value in config_values(typed).items() if parser.get(name) != value}
    if changed:
        parser.update(changed)
        parser.parse()
    return typed
