# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Folder layouts of the BraTS challenges, 2012 to date."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segan_monai.data.conventions import modality_name
from segan_monai.data.layout import Layout
from segan_monai.data.unread import warn
from segan_monai.errors import ConfigError, DataError
from segan_monai.file_kinds import VOLUMES, file_id, has_ending
from segan_monai.folders import existing_folder, walk_files

# 2013, 2015: .../HGG/<case>/VSD.Brain.XX.O.MR_T1c.54514/VSD.Brain.XX.O.MR_T1c.54514.mha; OT is the expert's label map
_VSD = re.compile(
    r"VSD\.Brain[^.]*\.XX\.(O|XX)\.(?P<kind>MR_T1c|MR_T1|MR_T2|MR_Flair|OT)(\.\d+)?\.(mha|nii|nii\.gz)", re.IGNORECASE
)
# 2017 to 2022: <case>_t1ce.nii.gz; BraTS20_Training_355 has its label map under the stray name W39_1998.09.19_Segm.nii
_UNDERSCORE = re.compile(
    r"(?P<case>.+)_(?P<kind>flair|t1|t1ce|t1c|t1gd|t2|seg|segm)\.nii(\.gz)?", re.IGNORECASE | re.DOTALL
)
# 2023 on: <case>-t1c.nii.gz
_HYPHEN = re.compile(r"(?P<case>.+)-(?P<kind>t1n|t1c|t2w|t2f|seg)\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)

# case folders whose last number is a time point of the subject
_TIME_POINTS = re.compile(r"(?P<subject>brats_tcia_pat\d+)_\d+|(?P<subject2023>.+-\d{5})-\d{3}", re.IGNORECASE)

_GRADES = {"HGG": "HGG", "HG": "HGG", "LGG": "LGG", "LG": "LGG"}
_MODALITIES = ("t1", "t1c", "t2", "flair")
_EXPECTED = (
    "BraTS 2013/2015 (<HGG|LGG>/<case>/VSD.Brain.XX.O.MR_T1c.<id>/VSD.Brain.XX.O.MR_T1c.<id>.mha), "
    "BraTS 2017-2022 (<case>/<case>_t1ce.nii.gz), BraTS 2023 on (<case>/<case>-t1c.nii.gz)"
)


def brats_file(path: Path) -> tuple[Path, str, str, str] | None:
    """Parse the name of a BraTS file.

    Returns:
        Folder of the case, name of the case, modality (or ``seg``) and label convention; None for any other file.
    """
    if match := _VSD.fullmatch(path.name):
        folder = _vsd_folder(path)
        kind = match["kind"].lower()
        return folder, folder.name, "seg" if kind == "ot" else modality_name(kind), "brats2015"
    if match := _UNDERSCORE.fullmatch(path.name):
        kind = match["kind"].lower()
        if kind == "segm":
            return path.parent, path.parent.name, "seg", "brats2021"
        return path.parent, match["case"], modality_name(kind), "brats2021"
    if match := _HYPHEN.fullmatch(path.name):
        return path.parent, match["case"], modality_name(match["kind"]), "brats2023"
    return None


def brats_cases(
    dataset_dir: str | os.PathLike[str],
    modalities: Sequence[str] = ("t1c", "t2", "flair"),
    unusable: dict[str, str] | None = None,
    keep_incomplete: bool = False,
) -> list[dict[str, Any]]:
    """Find the cases of a BraTS folder of any year by their file names, at any depth.

    The grade comes from a folder ``HGG`` or ``LGG`` (``HG``, ``LG``) above the case, or from ``name_mapping.csv``
    (2019, 2020). Cases of 2013 and 2015 are named ``<grade folder>_<case folder>``, because a case folder such as
    ``0001`` or ``brats_2013_pat0001_1`` occurs under both grades. BraTS-PED uses different labels and gets no
    convention.

    Args:
        dataset_dir: The folder, or any folder above it.
        modalities: Images to use, in this order: ``t1``, ``t1c``, ``t2``, ``flair`` or synonyms.
        unusable: If given, receives the name and the fault of each case that lacks a modality or has two files for
            one. Without it, such a case is an error.
        keep_incomplete: Return such a case too, with the fault as ``unusable`` and the images that it has.

    Returns:
        Cases sorted by name. Each has ``case``, ``subject`` (shared by the time points of a subject), ``image`` (paths
        in the order of ``modalities``) and ``convention``, and where available ``label`` and ``grade``.

    Raises:
        ConfigError: BraTS does not have a modality.
        DataError: The folder does not exist or holds no BraTS files; a case lacks a modality or has two files for
            one.
    """
    wanted = [modality_name(modality) for modality in modalities]
    if not wanted or not set(wanted) <= set(_MODALITIES):
        raise ConfigError(
            f"modalities={list(modalities)}: BraTS has {', '.join(_MODALITIES)} (or synonyms such as t1ce, t2w)."
        )
    root = existing_folder(dataset_dir)
    files: dict[tuple[Path, str], dict[str, Path]] = {}
    conventions: dict[tuple[Path, str], str] = {}
    graded: dict[str, str] = {}
    others: list[str] = []
    twice: dict[tuple[Path, str], str] = {}
    for path in walk_files(root):
        if path.name == "name_mapping.csv":
            graded |= _read_grades(path)
        elif found := brats_file(path):
            folder, name, kind, convention = found
            of_case = files.setdefault((folder, name), {})
            if kind in of_case and kind in (*wanted, "seg"):
                message = (
                    f"BraTS case {name} in {folder} has two files for {kind}: {of_case[kind].name} and {path.name}. "
                )
                twice.setdefault((folder, name), message + "Keep one of them.")
            of_case[kind] = path
            conventions[folder, name] = convention
        else:
            others.append(path.name)
    if not files:
        found_instead = f"{len(others)} other files, such as {', '.join(others[:3])}" if others else "no files at all"
        raise DataError(
            f"no BraTS case in {root}. Looked at any depth for {_EXPECTED}; found {found_instead}. "
            "Set --dataset_dir to the unpacked data set, or list the cases of another layout in a --datalist file."
        )
    warn(root, [name for name in others if has_ending(name, VOLUMES)], f"Cases are {_EXPECTED}")
    cases = []
    for (folder, name), of_case in files.items():
        fault = twice.get((folder, name))
        if missing := [modality for modality in wanted if modality not in of_case]:
            fault = (
                f"BraTS case {name} in {folder} has no file for {', '.join(missing)}; it has "
                f"{', '.join(path.name for path in of_case.values())}. Add the file, move the case out of the folder, "
                f"or remove the modality from --modalities (now {', '.join(modalities)})."
            )
        present = [modality for modality in wanted if modality in of_case]
        case_id = _vsd_name(folder, root) if conventions[folder, name] == "brats2015" else name
        grade = _GRADES[of_folder.upper()] if (of_folder := _grade_folder(folder, root)) else graded.get(name)
        case = _case(case_id, name, of_case, present, conventions[folder, name], grade)
        if fault is None:
            cases.append(case)
        elif keep_incomplete:
            cases.append({**case, "unusable": fault})
        elif unusable is None:
            raise DataError(fault)
        else:
            unusable[name] = fault
    return sorted(cases, key=lambda case: case["case"])


def _case(
    case_id: str, name: str, files: dict[str, Path], modalities: Sequence[str], convention: str, grade: str | None
) -> dict[str, Any]:
    time_point = _TIME_POINTS.fullmatch(name)
    case: dict[str, Any] = {
        "case": case_id,
        "subject": (time_point["subject"] or time_point["subject2023"]) if time_point else case_id,
        "image": [str(files[modality]) for modality in modalities],
    }
    if "seg" in files:
        case["label"] = str(files["seg"])
    if grade:
        case["grade"] = grade
    if "-PED-" not in name.upper():
        case["convention"] = convention
    return case


def _vsd_folder(path: Path) -> Path:
    """Return the folder of a case of 2013 or 2015, in which each file may have a folder of its own."""
    return path.parent.parent if path.parent.name.startswith("VSD.") else path.parent


def _vsd_name(folder: Path, root: Path) -> str:
    """Return the name of a case of 2013 or 2015, with the grade in front."""
    return "_".join(filter(None, (_grade_folder(folder, root), folder.name)))


def _grade_folder(folder: Path, root: Path) -> str | None:
    for parent in (folder, *folder.parents):
        if parent.name.upper() in _GRADES:
            return parent.name
        if parent == root:
            break
    return None


def _read_grades(path: Path) -> dict[str, str]:
    """Read the grade of each case from ``name_mapping.csv``, with columns ``BraTS_<year>_subject_ID`` of any year."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Expected a CSV table in UTF-8 with the columns Grade and "
            "BraTS_<year>_subject_ID: save it again, or move it elsewhere; only the grades are read from it."
        ) from error
    return {
        row[column]: row["Grade"]
        for row in rows
        if row.get("Grade") in ("HGG", "LGG")
        for column in row
        if column and re.fullmatch(r"BraTS_\d{4}_subject_ID", column, re.IGNORECASE)
    }


def _is_image(path: Path) -> bool:
    found = brats_file(path)
    return found is not None and found[2] != "seg"


def _label_maps(files: Sequence[Path], root: Path) -> dict[Path, str]:
    """Select ``<case>_seg`` and ``<case>-seg``; if there are none, files with ``.OT.`` in their names."""
    stems = {path: file_id(path) for path in files}
    marked = {path: stem[:-4] for path, stem in stems.items() if has_ending(stem, ("_seg", "-seg"))}
    if marked:  # the folder of W39_1998.09.19_Segm.nii names its case
        return marked | {path: path.parent.name for path, stem in stems.items() if stem.endswith("_Segm")}
    return {path: _vsd_name(_vsd_folder(path), root) for path in files if ".OT." in path.name}


BRATS = Layout(
    name="BraTS folders",
    data_set="BraTS",
    expected=_EXPECTED,
    matches=lambda folder, modalities: bool(modalities) and any(map(_is_image, walk_files(folder))),
    cases=lambda folder, modalities, keep_incomplete: brats_cases(
        folder, modalities or (), keep_incomplete=keep_incomplete
    ),
    label_maps=_label_maps,
)
