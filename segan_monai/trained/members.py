# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the members of an ensemble, which one run applies to the same preprocessed images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError
from segan_monai.trained.compare import contradictions
from segan_monai.trained.record import ADJUSTABLE, ONLY_ON
from segan_monai.trained.settings_file import RULES, read_trained_settings, settings_file


def require_same_settings(
    files: Sequence[Path], given: Collection[str], remedy: str = "Set --{key} for the whole ensemble."
) -> None:
    """Check that the weights of all members of an ensemble were trained with the same settings.

    Args:
        files: one file of weights per member.
        given: keys that the user has set; those of ``ADJUSTABLE`` may differ then.
        remedy: what to do about a key of ``ADJUSTABLE`` that differs, in the error message.

    Raises:
        ConfigError: The settings of two members differ, or ``model.json`` is damaged.
    """
    first = _with_defaults(read_trained_settings(files[0]))
    for file in files[1:]:
        other = _with_defaults(read_trained_settings(file))
        for key, (one, two) in contradictions(first, other, [key for key in ADJUSTABLE if key in given]).items():
            advice = (
                remedy.format(key=key)
                if key in ADJUSTABLE
                else "Members of one run need the same settings; segan-monai ensemble averages members with other ones."
            )
            raise ConfigError(f"{key} is {one} for {files[0]}, but {two} for {file} ({settings_file(file)}). {advice}")


def _with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add what a record omits where it is not used; nothing to weights without a record."""
    return {RULES: None, **dict.fromkeys(ONLY_ON, False), **settings} if settings else {}
