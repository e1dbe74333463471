# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Reader of nnU-Net's raw format: ``imagesTr/<case>_0000.nii.gz``, ``labelsTr/<case>.nii.gz``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segan_monai.case_names import case_name
from segan_monai.data.decathlon import cases_of_datalist, read_datalist
from segan_monai.data.layout import Layout
from segan_monai.errors import DataError
from segan_monai.file_kinds import VOLUMES, file_id, has_ending
from segan_monai.folders import existing_folder
from segan_monai.json_files import read_json

SPLITS = "splits_final.json"
"""nnU-Net's name of the file that lists the folds."""

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<number>\d{4})", re.DOTALL)


def by_channel(names: Sequence[str]) -> dict[str, dict[int, str]] | None:
    """Group files by case, if their names end in four-digit channel numbers.

    Args:
        names: File names of volumes.

    Returns:
        Mapping of case to channel number to file, sorted. None if a name has no such number, a case has no channel 0000
        (the digits then have another meaning, as in ``PANCREAS_0001.nii.gz``), or a channel occurs twice.
    """
    found: dict[str, dict[int, str]] = {}
    for name in sorted(names):
        match = _CHANNEL.fullmatch(file_id(name))
        if match is None or int(match["number"]) in found.setdefault(match["case"], {}):
            return None
        found[match["case"]][int(match["number"])] = name
    return found if found and all(0 in numbers for numbers in found.values()) else None


def is_nnunet(folder: Path) -> bool:
    """Check whether a folder is in nnU-Net's raw format.

    Any of these matches:

    - ``imagesTr`` with volumes, and no ``dataset.json``;
    - ``imagesTr``, and a ``dataset.json`` that lists no files;
    - a ``dataset.json`` that lists files without their channel numbers, as in nnU-Net's first version;
    - a ``dataset.json`` that lists files by case under ``dataset``, with or without ``imagesTr``.
    """
    file = folder / "dataset.json"
    if not file.is_file():
        return (folder / "imagesTr").is_dir() and bool(volumes_in(folder / "imagesTr"))
    content = read_datalist(file)
    listed = content.get("training")
    if not listed:
        return isinstance(content.get("dataset"), dict) or (folder / "imagesTr").is_dir()
    first = listed[0].get("image") if isinstance(listed, list) and isinstance(listed[0], dict) else None
    if not isinstance(first, str) or not file_id(first):
        return False
    name = Path(first).name
    numbered = name.replace(file_id(name), f"{file_id(name)}_0000", 1)
    try:
        return not (folder / first).exists() and (folder / first).with_name(numbered).exists()
    except (OSError, ValueError):  # not a valid path: decathlon_cases reports it
        return False


def nnunet_cases(
    dataset_dir: str | os.PathLike[str], modalities: Sequence[str] | None = None, keep_incomplete: bool = False
) -> list[dict[str, Any]]:
    """Read the cases of nnU-Net's raw format, version 1 or 2.

    - ``imagesTr``: one file per channel (``<case>_0000.nii.gz``, ``<case>_0001.nii.gz``) or one file per case.
    - ``labelsTr``: label maps ``<case>.nii.gz``.
    - ``imagesTs`` and ``labelsTs``: the section ``test``, which is never used for training.
    - ``dataset.json``: optional. These keys are read: ``channel_names`` (or ``modality``), ``file_ending``, ``dataset``
      (files by case, for files elsewhere below the folder) and ``domains`` (domain names by case, an extension
      of this project).
    - ``splits_final.json``: optional. Its folds are kept as ``fold`` of the cases.

    Args:
        dataset_dir: The folder.
        modalities: Channels to use, in this order, by their names in ``dataset.json``.
        keep_incomplete: Return a case that lacks a file listed in ``dataset.json`` with the reason under ``unusable``,
            see ``find_cases``.

    Returns:
        Cases in the form that ``segan_monai.data.decathlon_cases`` returns; unlabelled cases have no ``label``.

    Raises:
        DataError: The folder does not exist; the file ending is not that of a volume; a channel is missing, or cases
            have different numbers of channels; a label map has no image; or ``decathlon_cases`` raises it.
        ConfigError: The data set does not have a modality.
    """
    folder = existing_folder(dataset_dir)
    file = folder / "dataset.json"
    content = read_datalist(file) if file.is_file() else {}
    ending = content.get("file_ending")
    ending = ending.lower() if isinstance(ending, str) else ending
    if ending is not None and ending not in VOLUMES:
        raise DataError(
            f"{file}: file_ending is {ending!r}. Expected that of a volume: {', '.join(VOLUMES)}; convert the images, "
            "for example with SimpleITK."
        )
    names = content.get("channel_names", content.get("modality"))
    expected = len(names) if isinstance(names, dict | list) else None
    if isinstance(content.get("dataset"), dict):
        training = [_entry_of(file, case, files) for case, files in content["dataset"].items()]
    else:
        training = _entries(folder, "Tr", ending, expected)
    test = _entries(folder, "Ts", ending, expected) if (folder / "imagesTs").is_dir() else []
    domains = content.get("domains") or {}
    if not isinstance(domains, dict):
        raise DataError(
            f'{file}: \'domains\' is {str(domains)[:200]}. Expected one name per case: {{"case": "site A"}}.'
        )
    for entry in (*training, *test):
        if entry["case"] in domains:
            entry["domain"] = domains[entry["case"]]
    cases = cases_of_datalist(
        file, {"modality": names, "training": training, "test": test}, [folder], modalities, keep_incomplete
    )
    if (folder / SPLITS).is_file():
        _set_folds(folder / SPLITS, [case for case in cases if case["section"] == "training"])
    return cases


def _set_folds(file: Path, cases: Sequence[dict[str, Any]]) -> None:
    """Give each case the number of the fold that validates on it; -1 if it is in the training set of all of them."""
    try:
        folds = read_json(file, "Correct it, or move it elsewhere to have folds drawn.")
        sides = [{side: set(fold[side]) for side in ("train", "val")} for fold in folds]
    except (TypeError, KeyError) as error:
        raise DataError(
            f'{file} is not a list of folds ({error}). Expected [{{"train": [names of cases], "val": [...]}}, ...]; '
            "correct it, or move it elsewhere to have folds drawn."
        ) from error
    named = {name for fold in sides for side in fold.values() for name in side}
    if not any(case["case"] in named for case in cases):
        raise DataError(
            f"{file} names none of the {len(cases)} cases beside it, such as {cases[0]['case']}. Correct the names, "
            "or move the file elsewhere to have folds drawn."
        )
    for case in cases:
        validating = [number for number, fold in enumerate(sides) if case["case"] in fold["val"]]
        if len(validating) > 1:
            raise DataError(
                f"{file}: case {case['case']} is in 'val' of folds {', '.join(map(str, validating))}; expected one at "
                "most. Correct the file, or move it elsewhere to have folds drawn."
            )
        if case["case"] in named:
            case["fold"] = validating[0] if validating else -1


def volumes_in(folder: Path, ending: str | None = None) -> list[str]:
    """Return the sorted names of the volumes directly in a folder, or of those with an ending."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return [name for name in names if has_ending(name, ending or VOLUMES)]


def _entries(folder: Path, part: str, ending: str | None, expected: int | None) -> list[dict[str, Any]]:
    """Return datalist entries for ``imagesTr`` or ``imagesTs``, with paths relative to the folder."""
    images = folder / f"images{part}"
    names = volumes_in(images, ending) if images.is_dir() else []
    if not names:
        raise DataError(
            f"{images} holds no volume{f' that ends in {ending}' if ending else ''}. Expected nnU-Net's raw format: "
            f"{images / f'<case>_0000{ending or VOLUMES[1]}'}, one file per channel."
        )
    grouped = by_channel(names)
    if grouped is None:
        odd = [name for name in names if not _CHANNEL.fullmatch(file_id(name))]
        if odd and len(odd) < len(names) and any(file_id(name).endswith("_0000") for name in names):
            raise DataError(
                f"{images / odd[0]}: its name does not end in a channel number, unlike others. "
                f"Expected {file_id(odd[0])}_0000{odd[0].removeprefix(file_id(odd[0]))}."
            )
        grouped = {file_id(name): {0: name} for name in names}
    first = expected if expected and max(map(len, grouped.values())) > 1 else len(next(iter(grouped.values())))
    for case, files in grouped.items():
        if list(files) != list(range(first)):
            where = "dataset.json names" if first == expected else f"{next(iter(grouped))} has"
            raise DataError(
                f"{images}: case {case} has the channels {', '.join(f'{number:04d}' for number in files)}; {where} "
                f"{first}: {', '.join(f'{number:04d}' for number in range(first))}. Add the missing files, or move "
                "the case out of the folder."
            )
    labels = folder / f"labels{part}"
    label_of = {file_id(name): name for name in volumes_in(labels, ending)} if labels.is_dir() else {}
    if without := sorted(label_of.keys() - grouped.keys()):
        raise DataError(
            f"{labels / label_of[without[0]]} has no image: {len(without)} of {len(label_of)} label maps have none. "
            f"Expected {images / without[0]}_0000{ending or VOLUMES[1]}; add it, or move the label map elsewhere."
        )
    entries: list[dict[str, Any]] = []
    for case, files in grouped.items():
        paths = [f"{images.name}/{name}" for name in files.values()]
        entry: dict[str, Any] = {"case": case_name(case), "image": paths if len(paths) > 1 else paths[0]}
        entries.append(entry | ({"label": f"{labels.name}/{label_of[case]}"} if case in label_of else {}))
    return entries


def _entry_of(file: Path, case: str, files: Any) -> dict[str, Any]:
    """Convert an entry of the object ``dataset`` to a datalist entry."""
    images = files.get("images") if isinstance(files, dict) else None
    if not isinstance(images, list) or not images:
        raise DataError(
            f"{file}: 'dataset' has {str(files)[:200]} for {case}. Expected "
            '{"images": ["one file per channel"], "label": "file"}.'
        )
    rest = {key: value for key, value in files.items() if key != "images"}
    return {**rest, "case": case, "image": images if len(images) > 1 else images[0]}


NNUNET = Layout(
    name="nnU-Net raw format",
    data_set="nnU-Net",
    expected="imagesTr/<case>_0000.nii.gz, one file per channel, with labelsTr/<case>.nii.gz",
    matches=lambda folder, _: is_nnunet(folder),
    cases=nnunet_cases,
    names_cases=True,
)
