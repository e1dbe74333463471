# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Rules that join config keys of regions and label values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from segan_monai.data import number_of_regions, resolve_regions
from segan_monai.errors import ConfigError
from segan_monai.transforms import merged_regions

Values = Mapping[str, Any]
Problems = Iterator[str]

_SIDES = {0: ("left", "right"), 1: ("anterior", "posterior"), 2: ("superior", "inferior")}


def has(values: Values, *keys: str) -> bool:
    """Return whether a config has all of these keys."""
    return all(key in values for key in keys)


def _regions(values: Values, config: Values) -> Problems:
    if not has(values, "regions"):
        return
    regions = values["regions"]
    try:
        expected = number_of_regions(regions)
    except ConfigError as error:
        yield str(error)
        return
    resolved = config.get("label_regions")
    if regions == "auto" and isinstance(resolved, Mapping) and "cases" not in resolved:
        yield (
            "--regions auto: this config does not detect the convention from its cases. Expected the name of a "
            "convention or your own regions, such as {'lesion': [1]}."
        )
    elif has(values, "num_classes") and values["num_classes"] != expected:
        yield f"--num_classes {values['num_classes']}: there are {expected} regions. Set only --regions."
    elif regions != "auto" and has(values, "output_labels"):
        try:
            merged_regions(resolve_regions(regions), values["output_labels"])
        except ConfigError as error:
            yield f"--output_labels: {error}"


def _background_labels(values: Values, config: Values) -> Problems:
    """Check that no value counts both as background and as something else; ``_regions`` checks the regions."""
    background = set(values.get("background_labels") or ())
    if (ignored := values.get("ignore_label")) in background:
        yield f"--background_labels {sorted(background)}: {ignored} is the --ignore_label. Remove it from one of them."
    regions = values.get("regions")
    for name, of_region in regions.items() if isinstance(regions, Mapping) else ():
        if held := sorted(background.intersection(of_region if isinstance(of_region, list) else [of_region])):
            yield (
                f"--background_labels {sorted(background)}: region {name} has the values {held}. Expected values in no "
                "region."
            )


def _class_weights(values: Values, config: Values) -> Problems:
    if not has(values, "class_weights", "include_background", "num_classes"):
        return
    if values["class_weights"] is None or isinstance(values["class_weights"], str):
        return
    count = values["num_classes"] + values["include_background"]
    if len(values["class_weights"]) != count:
        yield (
            f"--class_weights {list(values['class_weights'])}: the loss has {count} classes; expected one weight per "
            "class."
        )


def _mirrored_sides(values: Values, config: Values) -> Problems:
    """Check that no axis is mirrored along which the names of two regions say their side."""
    axes = set(values.get("mirror_axes") or ())
    axes |= {0} if values.get("mirror_rois") else set()
    regions = values.get("regions")
    if not axes or not isinstance(regions, Mapping):
        return
    words = {word for region in regions for word in re.split(r"[^a-z]+", str(region).lower())}
    for axis in sorted(axes - {1, 2} if "image_size" in values else axes):
        if set(_SIDES[axis]) <= words:
            first, second = _SIDES[axis]
            key = f"--mirror_axes {list(values['mirror_axes'])}" if values.get("mirror_axes") else "--mirror_rois true"
            yield (
                f"{key}: regions ({', '.join(regions)}) name the sides {first} and {second}, which axis {axis} would "
                "exchange. Mirror only where both sides mean the same."
            )


LABEL_RULES: tuple[Callable[[Values, Values], Problems], ...] = (
    _regions,
    _background_labels,
    _class_weights,
    _mirrored_sides,
)
