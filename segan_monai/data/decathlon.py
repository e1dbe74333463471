# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Datalists in the format of the Medical Segmentation Decathlon's ``dataset.json``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from segan_monai.case_names import case_name
from segan_monai.data.conventions import modality_name
from segan_monai.data.layout import Layout
from segan_monai.errors import ConfigError, DataError, missing_file
from segan_monai.file_kinds import file_id
from segan_monai.json_files import read_json

_SECTIONS = {
    "training": "training",
    "unlabeled": "unlabeled",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_TEXTS = ("label", "case", "subject", "grade", "convention", "domain")


def decathlon_cases(
    dataset_dir_or_json: str | os.PathLike[str],
    modalities: Sequence[str] | None = None,
    base_dir: str | os.PathLike[str] | None = None,
    keep_incomplete: bool = False,
) -> list[dict[str, Any]]:
    """Read the cases of a decathlon ``dataset.json`` or of another datalist.

    A datalist has a section ``training`` and optionally ``unlabeled``, ``validation`` and ``test`` (or ``testing``). An
    entry is a path or an object with ``image`` (a path, or a list of paths in modality order), optionally ``label``,
    and further fields. All fields are kept: ``case``, ``subject``, ``grade``, ``convention``, ``domain``, ... A number
    ``fold`` in each entry of ``training`` defines the folds of ``segan_monai.data.split_cases``. ``labelled_regions``
    names the regions for which a case was labelled, if they are not all.

    Args:
        dataset_dir_or_json: The datalist, or a folder with a ``dataset.json``.
        modalities: Channels to use, in this order, by the names under ``modality`` in the file; synonyms such as T1gd
            and t1ce are equivalent. All channels are used if this is None or the file has no names.
        base_dir: Paths are resolved in this folder, then in the folder of the file. Paths outside both are refused.
        keep_incomplete: Return a case that lacks a file with the reason under ``unusable``, see ``find_cases``.

    Returns:
        Cases in the order of the file, each with ``section`` (``training``, ``unlabeled``, ``validation`` or ``test``).
        They have ``channels`` if ``modalities`` selects from a 4-D image, and ``convention`` for the brain tumours of
        Task01.

    Raises:
        DataError: The file does not exist, is not JSON or has no entries; an entry has no image or a field of the wrong
            type; a file does not exist or is outside both folders; the number of images differs from the number of
            modality names.
        ConfigError: The data set does not have a modality.
    """
    file = Path(dataset_dir_or_json).expanduser().absolute()
    if file.is_dir():
        file = file / "dataset.json"
    folders = [Path(base_dir).expanduser().absolute()] if base_dir else []
    return cases_of_datalist(file, read_datalist(file), [*folders, file.parent], modalities, keep_incomplete)


def cases_of_datalist(
    file: Path,
    datalist: dict[str, Any],
    folders: Sequence[Path],
    modalities: Sequence[str] | None = None,
    keep_incomplete: bool = False,
) -> list[dict[str, Any]]:
    """Return the cases of a parsed datalist; see ``decathlon_cases``.

    Args:
        file: Path for error messages.
        datalist: Content in the form that ``decathlon_cases`` describes.
        folders: Folders in which paths are resolved, in order.
        modalities: See ``decathlon_cases``.
        keep_incomplete: See ``decathlon_cases``.

    Raises:
        DataError: See ``decathlon_cases``.
        ConfigError: See ``decathlon_cases``.
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
            if Path(images[0]).name.startswith("._"):  # macOS creates one for every file
                continue
            case = {**entry, "image": _find(file, images, folders), "section": name}
            if case.get("label") and section == "unlabeled":
                raise DataError(
                    f"{file}: entry {position} of 'unlabeled' has a label, {str(case['label'])[:200]}. Move it to "
                    "'training', or omit the label."
                )
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
                        f"{file}: entry {position} of '{section}' has {len(images)} images, but 'modality' names "
                        f"{number_named}. Give one image per modality, in that order."
                    )
                case["image"] = [case["image"][index] for index in selected]
            cases.append(case)
    if not cases:
        raise DataError(
            f"{file} has no entries. Expected a list 'training' of "
            "{\"image\": ..., \"label\": ...}, and optionally 'unlabeled', 'validation' and 'test'; "
            f"found the keys {', '.join(datalist) or 'none'}."
        )
    _check_files(file, cases, folders, keep_incomplete)
    return cases


def read_datalist(file: Path) -> dict[str, Any]:
    """Read a datalist or a ``dataset.json``.

    Raises:
        DataError: The file does not exist or does not hold a JSON object.
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
    """Return the indices of the requested modalities among those named in the file, and the number named."""
    if not names or not modalities:
        return None, 0
    try:
        names = [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else list(names)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{file}: 'modality' is {str(names)[:200]}. Expected channel names by number, such as "
            '{"0": "FLAIR", "1": "T2"}.'
        ) from error
    known = [modality_name(str(name)) for name in names]
    wanted = [modality_name(modality) for modality in modalities]
    if wanted == known:  # all, even if several share a name, such as that of a normalization
        return list(range(len(names))), len(names)
    if missing := [modality for modality, name in zip(modalities, wanted, strict=True) if name not in known]:
        raise ConfigError(
            f"{file} has no modality {', '.join(missing)}; it names {', '.join(map(str, names))}. "
            "Choose from these with --modalities."
        )
    return [known.index(name) for name in wanted], len(names)


def _convention(labels: Any) -> str | None:
    """Return the convention of Task01 if the label names match it."""
    if not isinstance(labels, dict):
        return None
    oedema, non_enhancing, enhancing = (str(labels.get(value, "")).lower() for value in "123")
    is_task01 = "edema" in oedema and non_enhancing.startswith("non-enhancing") and enhancing.startswith("enhancing")
    return "msd_brain_tumour" if is_task01 else None


def _checked_entry(what: str, entry: Any) -> dict[str, Any]:
    """Convert an entry to a dictionary and check the types of its known fields."""
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
    labelled = entry.get("labelled_regions", [""])
    for key, fits, expected in (
        *((key, isinstance(entry.get(key, ""), str), "a string") for key in _TEXTS),
        ("fold", type(entry.get("fold", 0)) is int and entry.get("fold", 0) >= 0, "a whole number of at least 0"),
        ("channels", isinstance(channels, list) and all(type(c) is int and c >= 0 for c in channels), "[0, 2]"),
        (
            "labelled_regions",
            isinstance(labelled, list) and bool(labelled) and all(isinstance(name, str) for name in labelled),
            '["region"], the regions for which it was labelled',
        ),
        ("tissue_values", isinstance(values, dict) and all(map(_are_numbers, values.items())), '{"10": 1, "250": 3}'),
    ):
        if not fits:
            raise DataError(f"{what} has {key} {str(entry[key])[:200]}. Expected {expected}.")
    return entry


def _are_numbers(of_value: tuple[str, Any]) -> bool:
    return of_value[0].isdecimal() and type(of_value[1]) is int and of_value[1] >= 0


def _find(file: Path, paths: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Resolve paths in the first folder that has the file, or in the last one if none has.

    Datalists often come from third parties, so they must not make a run read arbitrary files.
    """
    found = []
    for path in paths:
        try:
            candidates = [Path(os.path.normpath(folder / Path(path).expanduser())) for folder in folders]
            inside = [one for one in candidates if any(one.is_relative_to(os.path.normpath(f)) for f in folders)]
            chosen = next((one for one in inside if one.exists()), inside[-1] if inside else None)
        except (OSError, ValueError, RuntimeError) as error:  # too long, invalid characters, unknown home folder
            raise DataError(f"{file}: {path[:200]!r} cannot be a path ({error}). Correct it there.") from error
        if chosen is None:
            common = os.path.commonpath([folders[0], *candidates])
            raise DataError(
                f"{file} names {path}, which is outside {' and '.join(map(str, dict.fromkeys(folders)))}. A datalist "
                "may name files in dataset_dir and in its own folder only: correct the path, or set --dataset_dir to a "
                f"folder that contains all of the files, such as {common}."
            )
        found.append(str(chosen))
    return found


def _case_id(images: Sequence[str]) -> str:
    """Return the name of the file; for several files their common prefix, or else the name of their folder."""
    names = [file_id(image) for image in images]
    if len(names) == 1:
        return names[0]
    letters = takewhile(lambda of_all: len(set(of_all)) == 1, zip(*names, strict=False))
    common = re.match(r"(.+)[_.-]", "".join(of_all[0] for of_all in letters))
    return common[1] if common else Path(images[0]).parent.name


def _check_files(file: Path, cases: Sequence[dict[str, Any]], folders: Sequence[Path], keep_incomplete: bool) -> None:
    """Check that the files of all sections but ``test`` exist; test images are often not unpacked."""
    missing = []
    incomplete = 0
    for case in cases:
        if case["section"] != "test":
            images = [case["image"]] if isinstance(case["image"], str) else case["image"]
            paths = [*images, *([case["label"]] if "label" in case else [])]
            of_case = [path for path in paths if not Path(path).exists()]
            if of_case and keep_incomplete:
                case["unusable"] = str(missing_file(of_case[0]))
            incomplete += bool(of_case)
            missing += of_case
    if missing and (not keep_incomplete or incomplete == len(cases)):
        raise DataError(
            f"{file} names {len(missing)} files that do not exist, the first of them {missing[0]}. Paths in it are "
            f"relative to {' or '.join(map(str, folders))}: correct them, or set --dataset_dir to the images' folder."
        )


DECATHLON = Layout(
    name="decathlon dataset.json",
    data_set="the decathlon",
    expected="dataset.json in it, or Task04_Hippocampus/dataset.json and the like",
    matches=lambda folder, _: (folder / "dataset.json").is_file(),
    cases=lambda folder, modalities, keep_incomplete: decathlon_cases(folder, modalities, None, keep_incomplete),
    names_cases=True,
    label_maps=lambda files, _: {path: file_id(path) for path in files if path.parent.name == "labelsTr"},
)
