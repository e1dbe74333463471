# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Comparison of settings with those that a network was trained with."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from segan_monai.data.conventions import LABEL_CONVENTIONS, modality_name, resolve_regions
from segan_monai.errors import ConfigError


def is_same(key: str, value: Any, trained: Any) -> bool:
    """Return whether a value of a key means the same to the network as the trained one.

    Synonyms of a modality (``t1ce``, ``t1c``) are the same. The order of modalities and of regions counts, because it
    is the order of the channels. Label conventions are the same regions of different label values.

    Args:
        key: the config key.
        value: the value of a config, such as ``"auto"`` for ``regions``.
        trained: the value in ``model.json``.
    """
    if key == "regions":
        if isinstance(value, str) and _is_convention(trained):
            return value == "auto" or value in LABEL_CONVENTIONS
        try:
            value = resolve_regions(value)
        except ConfigError:
            return False
    if key == "modalities" and isinstance(value, list | tuple) and isinstance(trained, list):
        value, trained = [modality_name(str(name)) for name in value], [modality_name(str(name)) for name in trained]
    return _text(value) == _text(trained)


def _is_convention(regions: Any) -> bool:
    """Return whether regions, as label values by name, are those of a label convention."""
    texts = {_text(convention.regions) for convention in LABEL_CONVENTIONS.values()}
    return _text(regions) in texts


def contradictions(
    trained: Mapping[str, Any], current: Mapping[str, Any], allowed: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Return the keys with another value than the trained one, with both values.

    Args:
        trained: settings of the training.
        current: settings of this run; keys of only one of the two are not compared.
        allowed: keys that may differ.
    """
    return {
        key: (value, current[key])
        for key, value in trained.items()
        if key in current and key not in allowed and not is_same(key, current[key], value)
    }


def _text(value: Any) -> str:
    """Return a text that is equal for equal values, in the order of their keys; 1 and 1.0 are equal."""
    return json.dumps(_unified(value), default=repr)


def _unified(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _unified(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_unified(inner) for inner in value]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
