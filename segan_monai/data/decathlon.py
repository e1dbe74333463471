# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The Medical Segmentation Decathlon's ``dataset.json``, and datalists of the same form that people write."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from segan_monai.case_names import case_name
from segan_monai.data.conventions import modality_name
from segan_monai.errors import ConfigError, DataError
from segan_monai.file_kinds import file_id
from segan_monai.json_files import read_json

_SECTIONS = {"training": "training", "validation": "validation", "test": "test", "testing": "test"}
_TEXTS = ("label", "case", "subject", "grade", "convention", "domain")


def decathlon_cases(
    dataset_dir_or_json: str | os.PathLike[str],
    modalities: Sequence[str] | None = None,
    base_dir: str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """Cases of a decathlon ``dataset.json``, or of a datalist of one's own.

    A datalist has a section ``training`` and perhaps ``validation`` and ``test`` (or ``testing``). An entry is a path
    or an object with ``image`` (one path, or a list of them in modality order), ``label`` and any other fields, which
    are kept: ``case``, ``subject``, ``grade``, ``convention``, ``domain``, ... A number under ``fold`` in each entry of
    ``training`` makes the folds of :func:`segan_monai.data.split_cases`.

    Args:
        dataset_dir_or_json: the datalist, or the folder in which it is called ``dataset.json``.
        modalities: take only these channels, in this order, by the names under ``modality`` in the file (synonyms
            such as T1gd and t1ce are understood). Without such names there, or with None, all are taken.
        base_dir: paths are looked for in this folder, then in that of the file; any other place is refused.

    Returns:
        Cases in the order of the file, each with ``section`` (``training``, ``validation`` or ``test``); ``channels``
        if ``modalities`` selects from one 4-D image; ``convention`` for the brain tumours of Task01.

    Raises:
        DataError: no such file; not JSON; no entries; an entry without image, or with fields of other types than
            these; files that do not exist or lie outside both folders; a number of images that differs from that of
            the modalities' names.
        ConfigError: a modality that the data set does not have.
    """
    file = Path(dataset_dir_or_json).expanduser().absolute()
    if file.is_dir():
        file = file / "dataset.json"
    folders = [Path(base_dir).expanduser().absolute()] if base_dir else []
    return cases_of_datalist(file, read_datalist(file), [*folders, file.parent], modalities)


def cases_of_datalist(
    file: Path, datalist: dict[str, Any], folders: Sequence[Path], modalities: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Cases of the content of a datalist; see `decathlon_cases`.

    Args:
        file: for messages.
        datalist: content of the form that `decathlon_cases` describes.
        folders: in which paths are looked for.
        modalities: see `decathlon_cases`.

    Raises:
        DataError: see `decathlon_cases`.
        ConfigError: see `decathlon_cases`.
    """
    selected, number_named = _select(file, datalist.get("modality"), modalities)
    convention = _convention(datalist.get("labels"))

    cases = []
    for section, name in _SECTIONS.items():
        entries = datalist.get(section) or []
        if not isinstance(entries, list):
            raise DataError(f"{file}: '{section}' is a {type(entries).__name__}. Expected a list of cases.")
        for position, entry in enumerate(entries):
            entry = _checked_entry(f"{file}: entry {position} of '{section}'", entry)
            image = entry["image"]
            images = [image] if isinstance(image, str) else list(image)
            if Path(images[0]).name.startswith("._"):  # left by macOS beside every file
                continue
            case = {**entry, "image": _find(file, images, folders), "section": name}
            if case.get("label"):
                (case["label"],) = _find(file, [case["label"]], folders)
            else:
                case.pop("label", None)
            case.setdefault("case", case_name(_case_id(images)))
            case.setdefault("subject", case["case"])
            if convention:
                case.setdefault("convention", convention)
            if isinstance(image, str):
                (case["image"],) = case["image"]
                if selected is not None:
                    case.setdefault("channels", selected)
            elif selected is not None:
                if len(images) != number_named:
                    raise DataError(
                        f"{file}: entry {position} of '{section}' has {len(images)} images where 'modality' names "
                        f"{number_named}. Give one image a modality, in that order."
                    )
                case["image"] = [case["image"][index] for index in selected]
            cases.append(case)
    if not cases:
        raise DataError(
            f"{file} has no entries. Expected a list 'training' of "
            "{\"image\": ..., \"label\": ...}, and perhaps 'validation' and 'test'; "
            f"found the keys {', '.join(datalist) or 'none'}."
        )
    _check_files(file, cases, folders)
    return cases


def read_datalist(file: Path) -> dict[str, Any]:
    """The content of a datalist or a ``dataset.json``.

    Raises:
        DataError: no such file, or no JSON object in it.
    """
    try:
        datalist = read_json(file)
    except FileNotFoundError as error:
        raise DataError(
            f"no datalist {file}. Expected a JSON file like the decathlon's dataset.json: set --datalist or "
            "--dataset_dir."
        ) from error
    if not isinstance(datalist, dict):
        raise DataError(f'{file} holds a {type(datalist).__name__}. Expected an object {{"training": [...]}}.')
    return datalist


def _select(file: Path, names: Any, modalities: Sequence[str] | None) -> tuple[list[int] | None, int]:
    """Positions of the wanted modalities among those that the file names, and how many it names."""
    if not names or not modalities:
        return None, 0
    try:
        names = [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else list(names)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{file}: 'modality' is {str(names)[:200]}. Expected the names of the channels by their numbers, such as "
            '{"0": "FLAIR", "1": "T2"}.'
        ) from error
    known = [modality_name(str(name)) for name in names]
    wanted = [modality_name(modality) for modality in modalities]
    if wanted == known:  # all of them, even where several have one name, such as that of a normalization
        return list(range(len(names))), len(names)
    if missing := [modality for modality, name in zip(modalities, wanted, strict=True) if name not in known]:
        raise ConfigError(
            f"{file} has no modality {', '.join(missing)}; it names {', '.join(map(str, names))}. "
            "Choose from these with --modalities."
        )
    return [known.index(name) for name in wanted], len(names)


def _convention(labels: Any) -> str | None:
    """The convention of Task01 if the names of the labels are its own."""
    if not isinstance(labels, dict):
        return None
    oedema, non_enhancing, enhancing = (str(labels.get(value, "")).lower() for value in "123")
    is_task01 = "edema" in oedema and non_enhancing.startswith("non-enhancing") and enhancing.startswith("enhancing")
    return "msd_brain_tumour" if is_task01 else None


def _checked_entry(what: str, entry: Any) -> dict[str, Any]:
    """An entry as a dictionary whose known fields are of the types that everything after relies on."""
    entry = {"image": entry} if isinstance(entry, str) else entry
    image = entry.get("image") if isinstance(entry, dict) else None
    images = [image] if isinstance(image, str) else image
    if not isinstance(images, list) or not images or not all(isinstance(path, str) and path for path in images):
        raise DataError(
            f'{what} has no image: {str(entry)[:200]}. Write {{"image": "path or list of paths", "label": "path"}}.'
        )
    numbers = {key: str(entry[key]) for key in ("case", "subject") if type(entry.get(key)) is int}
    entry = {key: value for key, value in {**entry, **numbers}.items() if value is not None}
    channels, values = entry.get("channels", []), entry.get("tissue_values", {})
    for key, fits, expected in (
        *((key, isinstance(entry.get(key, ""), str), "a text") for key in _TEXTS),
        ("fold", type(entry.get("fold", 0)) is int and entry.get("fold", 0) >= 0, "a whole number of at least 0"),
        ("channels", isinstance(channels, list) and all(type(c) is int and c >= 0 for c in channels), "[0, 2]"),
        ("tissue_values", isinstance(values, dict) and all(map(_are_numbers, values.items())), '{"10": 1, "250": 3}'),
    ):
        if not fits:
            raise DataError(f"{what} has {key} {str(entry[key])[:200]}. Expected {expected}.")
    return entry


def _are_numbers(of_value: tuple[str, Any]) -> bool:
    return of_value[0].isdecimal() and type(of_value[1]) is int and of_value[1] >= 0


def _find(file: Path, paths: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Absolute paths: in the first of the folders that has the file, or in the last one if none has.

    A datalist comes from elsewhere more often than not, and must not make a run read whatever it names.
    """
    found = []
    for path in paths:
        try:
            candidates = [Path(os.path.normpath(folder / Path(path).expanduser())) for folder in folders]
            inside = [one for one in candidates if any(one.is_relative_to(os.path.normpath(f)) for f in folders)]
            chosen = next((one for one in inside if one.exists()), inside[-1] if inside else None)
        except (OSError, ValueError, RuntimeError) as error:  # too long, characters that no path has, no such home
            raise DataError(f"{file}: {path[:200]!r} cannot be a path ({error}). Correct it there.") from error
        if chosen is None:
            holds_all = os.path.commonpath([folders[0], *candidates])
            raise DataError(
                f"{file} names {path}, which lies outside {' and '.join(map(str, dict.fromkeys(folders)))}. A datalist "
                "may name files in dataset_dir and in its own folder only: correct the path, or allow more by setting "
                f"--dataset_dir to a folder that holds all of the files, such as {holds_all}."
            )
        found.append(str(chosen))
    return found


def _case_id(images: Sequence[str]) -> str:
    """The file's name, or for several files what their names begin with, or else the name of their folder."""
    names = [file_id(image) for image in images]
    if len(names) == 1:
        return names[0]
    letters = takewhile(lambda of_all: len(set(of_all)) == 1, zip(*names, strict=False))
    common = re.match(r"(.+)[_.-]", "".join(of_all[0] for of_all in letters))
    return common[1] if common else Path(images[0]).parent.name


def _check_files(file: Path, cases: Sequence[dict[str, Any]], folders: Sequence[Path]) -> None:
    """Test images are often not unpacked, so only those of the other sections must be there."""
    missing = []
    for case in cases:
        if case["section"] != "test":
            images = [case["image"]] if isinstance(case["image"], str) else case["image"]
            paths = [*images, *([case["label"]] if "label" in case else [])]
            missing += [path for path in paths if not Path(path).exists()]
    if missing:
        raise DataError(
            f"{file} names {len(missing)} files that do not exist, the first of them {missing[0]}. Paths in it are "
            f"relative to {' or '.join(map(str, folders))}: correct them, or set --dataset_dir to the images' folder."
        )
