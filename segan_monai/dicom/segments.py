# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What each segment of a result is: label, SNOMED CT codes and colour, from the bundle's metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segan_monai.errors import ConfigError
from segan_monai.pictures.overlay_picture import COLOURS

TISSUE = ("85756007", "SCT", "Tissue")
"""Category and type of a region that the metadata does not describe."""
_FIELDS = {"label", "category", "type", "modifier", "anatomy", "colour"}
_LONGEST = 64  # of a label, by the standard


@dataclass(frozen=True)
class Segment:
    """Segment of a result.

    Attributes:
        name: region of the bundle.
        values: values of the label map that belong to it.
        label: name for viewers, of at most 64 characters.
        category: segmented property category: code, coding scheme and meaning.
        type: segmented property type.
        colour: red, green and blue, 0 to 255.
        modifier: modifier of the type, such as "Anterior"; None for none.
        anatomy: anatomic region; None for none.
    """

    name: str
    values: tuple[int, ...]
    label: str
    category: tuple[str, str, str]
    type: tuple[str, str, str]
    colour: tuple[int, int, int]
    modifier: tuple[str, str, str] | None = None
    anatomy: tuple[str, str, str] | None = None


def segments_of(metadata: Mapping[str, Any], regions: Mapping[str, Sequence[int]], exclusive: bool) -> list[Segment]:
    """Return the segments of a bundle's regions.

    ``segments`` in the metadata describes regions by name. Each entry has any of ``label``, ``category``, ``type``,
    ``modifier``, ``anatomy`` (a list of code, coding scheme and meaning) and ``colour`` (red, green, blue, 0 to 255).
    ``remainder`` describes what is left of the region outside the regions within it, for exclusive segments. A region
    without an entry is a "Tissue" with the region's name as its label.

    Args:
        metadata: ``metadata.json``.
        regions: values of each region in the label map, see ``segan_monai.transforms.regions.merged_regions``.
        exclusive: whether a voxel may belong to one segment only, as in a label map.

    Raises:
        ConfigError: An entry is not of this form.
    """
    table = metadata.get("segments", {})
    if not isinstance(table, Mapping):
        raise ConfigError(
            f"segments in metadata.json is {table!r}. Expected a region's name and its entry in each line."
        )
    used = _used_values(regions)
    segments = []
    for index, (name, values) in enumerate(regions.items()):
        entry = dict(table.get(name, {}))
        rest = entry.pop("remainder", {})
        if exclusive and len(values) > 1:
            values = [used[name]]
            entry = {"label": f"{entry.get('label', name)} outside inner regions", **_except_label(entry), **rest}
        _check_entry(name, {**entry, **rest})
        segments.append(
            Segment(
                name,
                tuple(values),
                str(entry.get("label", name))[:_LONGEST],
                tuple(entry.get("category", TISSUE)),
                tuple(entry.get("type", TISSUE)),
                tuple(entry.get("colour") or _colour(index)),
                tuple(entry["modifier"]) if "modifier" in entry else None,
                tuple(entry["anatomy"]) if "anatomy" in entry else None,
            )
        )
    return segments


def _used_values(regions: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Return the own value of each region: the one that no region within it has."""
    own = {}
    for name, values in regions.items():
        inner = {value for other in regions.values() if set(other) < set(values) for value in other}
        own[name] = next(value for value in values if value not in inner)
    return own


def _except_label(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "label"}


def _check_entry(name: str, entry: Mapping[str, Any]) -> None:
    where = f"segments in metadata.json: {name}"
    if unknown := sorted(entry.keys() - _FIELDS):
        raise ConfigError(f"{where} has {', '.join(unknown)}. Expected {', '.join(sorted(_FIELDS))} or remainder.")
    for key in ("category", "type", "modifier", "anatomy"):
        code = entry.get(key, TISSUE)
        if not (isinstance(code, Sequence) and len(code) == 3 and all(isinstance(part, str) and part for part in code)):
            raise ConfigError(
                f"{where} has the {key} {code!r}. Expected code, coding scheme and meaning, such as {list(TISSUE)}."
            )
    colour = entry.get("colour", [0, 0, 0])
    if len(colour) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in colour):
        raise ConfigError(f"{where} has the colour {colour!r}. Expected red, green and blue from 0 to 255.")


def _colour(index: int) -> tuple[int, ...]:
    """Return the colour that overlay pictures have for a region."""
    from matplotlib.colors import to_rgb

    return tuple(round(255 * part) for part in to_rgb(COLOURS[index % len(COLOURS)]))
