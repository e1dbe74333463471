# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Description of a data set from its files: channel names, labels, licence."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segan_monai.data import find_cases
from segan_monai.data.brats import BRATS, brats_file
from segan_monai.data.conventions import LABEL_CONVENTIONS, modality_name, resolve_regions
from segan_monai.data.decathlon import read_datalist
from segan_monai.data.unlabeled import by_label
from segan_monai.errors import ConfigError, DataError
from segan_monai.folders import existing_folder, walk_files

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
        selects_modalities: Whether the loader needs the channel names to find the cases again.
        chosen_regions: Whether the user chose the regions; label values outside them become background.
        unlabelled: Number of further cases without a label map, outside the section ``test``.
        ignore_label: Label value of voxels whose label is unknown, named ``ignore`` as in nnU-Net; None without it.
    """

    folder: Path
    title: str
    channels: list[str]
    regions: dict[str, list[int]]
    licence: str
    reference: str
    cases: list[dict[str, Any]]
    selects_modalities: bool = False
    chosen_regions: bool = False
    unlabelled: int = 0
    ignore_label: int | None = None


def describe_data(
    data: str | Path, modalities: Sequence[str] | None = None, regions: Mapping[str, list[int]] | None = None
) -> DataDescription:
    """Describe a folder of BraTS, in the decathlon's format or nnU-Net's raw format, without reading images.

    Args:
        data: The folder, with ``imagesTr`` and ``labelsTr``, where ``dataset.json`` is optional; or folders of BraTS of
            any year.
        modalities: Channels to use, in this order; by default all, for BraTS those that every case has.
        regions: Label values of each region; by default those of ``dataset.json``, or of the convention of BraTS.

    Raises:
        ConfigError: The data set does not have a modality, or a region has no positive label value.
        DataError: The folder does not exist, or has no labels or fewer than two subjects; names of channels or labels
            are invalid; cases of BraTS follow several label conventions; or ``find_cases`` raises it.
    """
    folder = Path(os.path.normpath(existing_folder(data)))
    file = folder / "dataset.json"
    content = read_datalist(file) if file.is_file() else {}
    brats = not content and not (folder / "imagesTr").is_dir()
    if brats:
        modalities = modalities or _modalities_of_all(folder)
    elif not content.get("training") and not content.get("dataset") and not (folder / "labelsTr").is_dir():
        raise DataError(f"{folder} has no folder labelsTr. Expected a label map labelsTr/<case>.nii.gz for each case.")
    channels = _channels(file, content.get("channel_names", content.get("modality")))
    if modalities:
        channels = _selected(folder, channels, modalities, brats)
    selected = channels if modalities else None
    found = find_cases(folder, modalities=selected, require_labels=True, keep_unlabeled=True)
    cases, without = by_label([case for case in found if case.get("section") != "test"])
    if regions is not None:
        named = resolve_regions(regions)
    elif content.get("labels"):
        named = _regions(file, content["labels"])
    else:
        named = _regions_of_convention(folder, cases) if brats else {}
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
        named,
        str(content.get("licence") or content.get("license") or ""),
        str(content.get("reference") or ""),
        cases,
        bool(modalities),
        regions is not None,
        len(without),
        _ignore_label(file, content.get("labels")),
    )


def _modalities_of_all(folder: Path) -> list[str]:
    """Return the modalities that every labelled case of a folder of BraTS has, as its file names tell."""
    files: dict[tuple[Path, str], set[str]] = {}
    for path in walk_files(folder):
        if parsed := brats_file(path):
            files.setdefault(parsed[:2], set()).add(parsed[2])
    if not files:
        raise DataError(
            f"{folder} has neither dataset.json nor imagesTr. Expected the decathlon's format or nnU-Net's raw format: "
            f"imagesTr/<case>_0000.nii.gz, labelsTr/<case>.nii.gz, dataset.json; or {BRATS.expected}."
        )
    labelled = [kinds for kinds in files.values() if "seg" in kinds]
    if not labelled:
        raise DataError(f"{folder} has {len(files)} cases and no label map. Expected <case>/<case>_seg.nii.gz.")
    shared = [name for name in ("t1", "t1c", "t2", "flair") if all(name in kinds for kinds in labelled)]
    if not shared:
        raise DataError(f"{folder}: the {len(labelled)} labelled cases have no modality in common. Set --modalities.")
    return shared


def _selected(folder: Path, channels: list[str], modalities: Sequence[str], brats: bool) -> list[str]:
    """Return the modalities by the names of the data set."""
    if brats:
        return [modality_name(name) for name in modalities]
    known = {modality_name(name): name for name in channels}
    if odd := [name for name in modalities if modality_name(name) not in known]:
        raise ConfigError(
            f"--modalities: {folder} has no {', '.join(odd)}. Expected names from dataset.json: "
            f"{', '.join(channels) or 'it has none; add channel_names'}."
        )
    return [known[modality_name(name)] for name in modalities]


def _regions_of_convention(folder: Path, cases: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return the regions of the one convention of the cases; empty if it is unknown."""
    first = {str(case.get("convention", "unknown")): case["case"] for case in reversed(cases)}
    if len(first) > 1:
        raise DataError(
            f"{folder} has cases of several label conventions, in which a value means different structures: "
            f"{', '.join(f'{name} (case {case})' for name, case in sorted(first.items()))}. Give the folder of one of "
            "them; to train on all, convert their label maps to one convention and set --regions."
        )
    return resolve_regions("auto", cases) if first.keys() <= LABEL_CONVENTIONS.keys() else {}


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


def _named(file: Path, labels: Any) -> list[tuple[str, Any]]:
    """Return names and values of labels that are given as names to values or values to names."""
    if not isinstance(labels, Mapping):
        raise DataError(f"{file}: 'labels' is {str(labels)[:200]}. {_NAMED_BOTH_WAYS}.")
    decathlon = all(str(key).isdecimal() for key in labels)
    return [(str(value), int(key)) if decathlon else (str(key), value) for key, value in labels.items()]


def _is_ignore(name: str) -> bool:
    return name.strip().lower() == "ignore"


def _ignore_label(file: Path, labels: Any) -> int | None:
    """Return the value of the label ``ignore``, with which nnU-Net marks voxels whose label is unknown."""
    value = next((value for name, value in _named(file, labels or {}) if _is_ignore(name)), None)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    value = int(value) if isinstance(value, str) and value.isdecimal() else value
    if value is not None and (type(value) is not int or value < 1):
        raise DataError(f"{file}: label 'ignore' is {str(value)[:200]}. Expected one positive value of its own.")
    return value


def _regions(file: Path, labels: Any) -> dict[str, list[int]]:
    """Return the regions, from names to values or values to names; nnU-Net's regions are lists of values."""
    regions: dict[str, list[int]] = {}
    for name, values in _named(file, labels):
        values = list(values) if isinstance(values, list) else [values]
        values = [int(value) if isinstance(value, str) and value.isdecimal() else value for value in values]
        if not values or not all(type(value) is int and value >= 0 for value in values):
            raise DataError(
                f"{file}: label {name!r} is {str(values)[:200]}. {_NAMED_BOTH_WAYS}; write a region of several values "
                "as a list, [1, 2]."
            )
        if values == [0] or _is_ignore(name):
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
