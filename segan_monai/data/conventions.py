# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Label conventions of the public brain tumour data sets, and the regions made of the label values.

Label values changed over the years: enhancing tumour is 4 until 2022 and 3 from 2023 on. A convention is therefore
always named, never guessed from the values of a label map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segan_monai.errors import ConfigError


@dataclass(frozen=True)
class LabelConvention:
    """Label values of a data set and the nested regions made of them.

    Attributes:
        name: Name used in settings, for example ``brats2021``.
        labels: Tissue of each label value, without background (0).
        regions: Label values of each region, the enclosing region first.
    """

    name: str
    labels: dict[int, str]
    regions: dict[str, tuple[int, ...]]


def _convention(name: str, labels: dict[int, str], core: tuple[int, ...], enhancing: int) -> LabelConvention:
    regions = {"whole_tumour": tuple(labels), "tumour_core": core, "enhancing_tumour": (enhancing,)}
    return LabelConvention(name, labels, regions)


LABEL_CONVENTIONS: dict[str, LabelConvention] = {
    convention.name: convention
    for convention in (
        _convention(  # BraTS 2012 to 2015
            "brats2015",
            {1: "necrosis", 2: "oedema", 3: "non-enhancing tumour", 4: "enhancing tumour"},
            core=(1, 3, 4),
            enhancing=4,
        ),
        _convention(  # BraTS 2017 to 2022
            "brats2021",
            {1: "necrosis and non-enhancing tumour", 2: "oedema", 4: "enhancing tumour"},
            core=(1, 4),
            enhancing=4,
        ),
        _convention(  # BraTS 2023 on
            "brats2023",
            {1: "necrosis and non-enhancing tumour", 2: "oedema", 3: "enhancing tumour"},
            core=(1, 3),
            enhancing=3,
        ),
        _convention(  # Medical Segmentation Decathlon, Task01
            "msd_brain_tumour",
            {1: "oedema", 2: "non-enhancing tumour", 3: "enhancing tumour"},
            core=(2, 3),
            enhancing=3,
        ),
    )
}

_MODALITY_SYNONYMS = {
    "t1w": "t1",
    "t1n": "t1",
    "t1ce": "t1c",
    "t1gd": "t1c",
    "t2w": "t2",
    "t2f": "flair",
}


def modality_name(name: str) -> str:
    """Return the canonical name of an MRI modality: ``t1``, ``t1c``, ``t2`` or ``flair``.

    Args:
        name: Name in a data set: ``T1w``, ``t1n``, ``t1gd``, ``t1ce``, ``T2w``, ``t2f``, ``FLAIR``, ``MR_T1c``, ...

    Returns:
        The canonical name; any other name in lower case.
    """
    name = name.strip().lower().removeprefix("mr_")
    return _MODALITY_SYNONYMS.get(name, name)


def resolve_regions(
    regions: str | Mapping[str, Iterable[int]], cases: Sequence[Mapping[str, Any]] = ()
) -> dict[str, list[int]]:
    """Resolve the setting ``regions`` to the label values of each region.

    Args:
        regions: One of:

            - the name of a convention, a key of ``LABEL_CONVENTIONS``;
            - a mapping of region names to label values, such as ``{"anterior": [1], "posterior": [2]}``;
            - ``"auto"``: the convention of the cases.
        cases: The cases; used by ``"auto"``.

    Returns:
        Mapping of region names to label values, in the order of the setting.

    Raises:
        ConfigError: The convention is unknown; ``"auto"`` finds no convention or several; a region has no label
            values, or one that is not a positive integer.
    """
    if not isinstance(regions, str):
        return _checked(regions)
    choices = f"a convention ({', '.join(LABEL_CONVENTIONS)}) or your own regions, such as {{'lesion': [1]}}"
    if regions == "auto":
        found = {str(case.get("convention", "unknown")) for case in cases}
        if len(found) != 1 or not found <= LABEL_CONVENTIONS.keys():
            what = ", ".join(sorted(found)) if found else "no cases"
            raise ConfigError(
                f"regions='auto' needs cases of one known label convention, but found: {what}. "
                f"Set --regions to {choices}."
            )
        (regions,) = found
    if regions not in LABEL_CONVENTIONS:
        raise ConfigError(f"unknown label convention regions={regions!r}. Set --regions to 'auto', {choices}.")
    return {name: list(values) for name, values in LABEL_CONVENTIONS[regions].regions.items()}


def number_of_regions(regions: str | Mapping[str, Iterable[int]]) -> int:
    """Return the number of regions of a setting, for config expressions evaluated before cases are found.

    Args:
        regions: See ``resolve_regions``. All conventions that ``"auto"`` can find have the same number of regions.

    Raises:
        ConfigError: See ``resolve_regions``.
    """
    if regions == "auto":
        (number,) = {len(convention.regions) for convention in LABEL_CONVENTIONS.values()}
        return number
    return len(resolve_regions(regions))


def _checked(regions: Mapping[str, Iterable[int]]) -> dict[str, list[int]]:
    if not isinstance(regions, Mapping) or not regions:
        raise ConfigError(
            f"regions must name at least one region and its label values, such as {{'lesion': [1]}}; found {regions!r}."
        )
    checked = {}
    for name, values in regions.items():
        values = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
        if not values or not all(isinstance(value, int) and value > 0 and value is not True for value in values):
            raise ConfigError(
                f"regions: region {name!r} needs one or more positive integer label values (0 is background), such as "
                f"[1, 2]; found {values!r}."
            )
        checked[name] = values
    return checked
