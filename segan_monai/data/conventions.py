# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What the numbers in a label map mean: the conventions of the public brain tumour data sets, and their regions.

The same voxel value means different tissue in different years (4 is enhancing tumour until 2022, 3 from 2023 on), so
a convention is always named and never guessed from the values of one label map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segan_monai.errors import ConfigError


@dataclass(frozen=True)
class LabelConvention:
    """The label values of a data set and the nested regions made of them.

    Attributes:
        name: as it is written in settings, for example ``brats2021``.
        labels: tissue of each label value; background (0) is not listed.
        regions: label values that make up each region, the enclosing region first.
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
    """The one name by which this project knows an MRI modality: ``t1``, ``t1c``, ``t2`` or ``flair``.

    Args:
        name: as data sets write it: ``T1w``, ``t1n``, ``t1gd``, ``t1ce``, ``T2w``, ``t2f``, ``FLAIR``, ``MR_T1c``, ...

    Returns:
        The common name; a name that is none of these comes back in lower case.
    """
    name = name.strip().lower().removeprefix("mr_")
    return _MODALITY_SYNONYMS.get(name, name)


def resolve_regions(
    regions: str | Mapping[str, Iterable[int]], cases: Sequence[Mapping[str, Any]] = ()
) -> dict[str, list[int]]:
    """Label values of each region, from a setting.

    Args:
        regions: the name of a convention (a key of ``LABEL_CONVENTIONS``); or the regions themselves, name to label
            values, such as ``{"anterior": [1], "posterior": [2]}``; or ``"auto"``: the convention that the cases have.
        cases: the cases, for ``"auto"``.

    Returns:
        Region name to label values, in the order of the setting.

    Raises:
        ConfigError: unknown convention; ``"auto"`` where the cases have none or several; a region without label
            values or with a value that is not a positive whole number.
    """
    if not isinstance(regions, str):
        return _checked(regions)
    choices = f"a convention ({', '.join(LABEL_CONVENTIONS)}) or regions of your own, such as {{'lesion': [1]}}"
    if regions == "auto":
        found = {str(case.get("convention", "unknown")) for case in cases}
        if len(found) != 1 or not found <= LABEL_CONVENTIONS.keys():
            what = ", ".join(sorted(found)) if found else "no cases"
            raise ConfigError(
                f"regions='auto' needs cases of one known label convention, but found: {what}. "
                f"Say what the label values mean with --regions: {choices}."
            )
        (regions,) = found
    if regions not in LABEL_CONVENTIONS:
        raise ConfigError(f"unknown label convention regions={regions!r}. Set --regions to 'auto', {choices}.")
    return {name: list(values) for name, values in LABEL_CONVENTIONS[regions].regions.items()}


def number_of_regions(regions: str | Mapping[str, Iterable[int]]) -> int:
    """Number of regions of a setting, for expressions that need it before there are cases.

    Args:
        regions: see `resolve_regions`. Of the conventions that ``"auto"`` may find, all have as many regions.

    Raises:
        ConfigError: see `resolve_regions`.
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
                f"regions: region {name!r} needs one or more positive whole label values (0 is background), such as "
                f"[1, 2]; found {values!r}."
            )
        checked[name] = values
    return checked
