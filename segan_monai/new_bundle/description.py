# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Description of a data set from its files: channel names, labels, licence."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segan_monai.data import find_cases
from segan_monai.data.decathlon import read_datalist
from segan_monai.errors import DataError
from segan_monai.folders import existing_folder

_NAMED_BOTH_WAYS = 'Expected {"background": 0, "tumour": 1} or {"0": "background", "1": "tumour"}'


@dataclass(frozen=True)
class DataDescription:
    """Description of a labelled data set, before any image is read.

    Attributes:
        folder: Absolute path.
        title: Name of the data set.
        channels: Names of the channels; empty if unknown.
        regions: Label values of each region; empty if unknown.
        licence: Licence of the images; empty if unknown.
        reference: Authors or publication; empty if unknown.
        cases: Cases with a label map, as :func:`segan_monai.data.find_cases` returns them.
    """

    folder: Path
    title: str
    channels: list[str]
    regions: dict[str, list[int]]
    licence: str
    reference: str
    cases: list[dict[str, Any]]


def describe_data(data: str | Path) -> DataDescription:
    """Describe a folder in the decathlon's format or nnU-Net's raw format, without reading images.

    Args:
        data: The folder, with ``imagesTr`` and ``labelsTr``; ``dataset.json`` is optional.

    Raises:
        DataError: The folder does not exist, or has no labels or fewer than two subjects; names of channels or labels
            are invalid; there is an ``ignore`` label; or ``find_cases`` raises it.
    """
    folder = Path(os.path.normpath(existing_folder(data)))
    file = folder / "dataset.json"
    content = read_datalist(file) if file.is_file() else {}
    if not content and not (folder / "imagesTr").is_dir():
        raise DataError(
            f"{folder} has neither dataset.json nor imagesTr. Expected the decathlon's format or nnU-Net's raw format: "
            "imagesTr/<case>_0000.nii.gz, labelsTr/<case>.nii.gz, dataset.json."
        )
    if not content.get("training") and not content.get("dataset") and not (folder / "labelsTr").is_dir():
        raise DataError(f"{folder} has no folder labelsTr. Expected a label map labelsTr/<case>.nii.gz for each case.")
    channels = _channels(file, content.get("channel_names", content.get("modality")))
    regions = _regions(file, content["labels"]) if content.get("labels") else {}
    cases = [case for case in find_cases(folder, require_labels=True) if case.get("section") != "test"]
    subjects = {case["subject"] for case in cases}
    if len(subjects) < 2:
        raise DataError(
            f"{folder} has {len(subjects)} labelled subject for training. Expected at least 2: one is held out for "
            "evaluation."
        )
    return DataDescription(
        folder,
        str(content.get("name") or folder.name),
        channels,
        regions,
        str(content.get("licence") or content.get("license") or ""),
        str(content.get("reference") or ""),
        cases,
    )


def _channels(file: Path, names: Any) -> list[str]:
    """Return the channel names in order, from a list or a mapping of numbers to names."""
    if not names:
        return []
    try:
        found = (
            [str(names[key]) for key in sorted(names, key=int)] if isinstance(names, dict) else list(map(str, names))
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f'{file}: the channel names are {str(names)[:200]}. Expected them by number: {{"0": "T1"}}.'
        ) from error
    if odd := [name for name in found if not name.strip() or name[0] in "$@%"]:
        raise DataError(f"{file}: a channel is named {odd[0]!r}. Expected a name that begins with a letter.")
    return found


def _regions(file: Path, labels: Any) -> dict[str, list[int]]:
    """Return the regions, from names to values or values to names; nnU-Net's regions are lists of values."""
    if not isinstance(labels, Mapping):
        raise DataError(f"{file}: 'labels' is {str(labels)[:200]}. {_NAMED_BOTH_WAYS}.")
    decathlon = all(str(key).isdecimal() for key in labels)
    named = [(str(value), int(key)) if decathlon else (str(key), value) for key, value in labels.items()]
    regions: dict[str, list[int]] = {}
    for name, values in named:
        values = list(values) if isinstance(values, list) else [values]
        values = [int(value) if isinstance(value, str) and value.isdecimal() else value for value in values]
        if not values or not all(type(value) is int and value >= 0 for value in values):
            raise DataError(
                f"{file}: label {name!r} is {str(values)[:200]}. {_NAMED_BOTH_WAYS}; write a region of several values "
                "as a list, [1, 2]."
            )
        if name.strip().lower() == "ignore":
            raise DataError(
                f"{file} has an 'ignore' label ({', '.join(map(str, values))}) for unlabelled voxels, which the losses "
                "and metrics here do not support. Remove the cases with it from the data set, or label these voxels, "
                "and remove 'ignore' from 'labels'."
            )
        if values == [0]:
            continue
        cleaned = re.sub(r"[^\w .()-]+", "_", name).strip(" ._-")
        if not cleaned or cleaned in regions or 0 in values:
            raise DataError(
                f"{file}: label {name!r} has the values {values}. Expected names that differ in letters and digits, "
                "and 0 for background only."
            )
        regions[cleaned] = sorted(set(values))
    if not regions:
        raise DataError(f"{file}: 'labels' names only the background. {_NAMED_BOTH_WAYS}.")
    return regions
