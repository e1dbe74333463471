# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Locates the cases of each supported public data set."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from segan_monai.case_names import with_case_names
from segan_monai.data.brats import BRATS, brats_cases
from segan_monai.data.conventions import LABEL_CONVENTIONS
from segan_monai.data.decathlon import DECATHLON, decathlon_cases
from segan_monai.data.iseg import ISEG
from segan_monai.data.isic import PHOTOGRAPHS
from segan_monai.data.layout import Layout
from segan_monai.data.mrbrains import MRBRAINS
from segan_monai.errors import DataError
from segan_monai.folders import walk_files
from segan_monai.json_files import read_json_object
from segan_monai.nifti import open_nifti
from segan_monai.prepare.dicom import Series, find_series
from segan_monai.prepare.options import PrepareOptions

_BRATS_MODALITIES = ("t1c", "t2", "flair")  # as the bundle expects
_TISSUES = ("background", "CSF", "grey matter", "white matter")
_LABEL_FILE = re.compile(r"label(?P<number>\d{4})\.nii(\.gz)?", re.IGNORECASE)


class Source(NamedTuple):
    """Cases and description of a data set.

    Attributes:
        cases: Dictionaries in the form that ``find_cases`` returns. For a CT, ``image`` lists all DICOM files of the
            series, and ``series`` names it.
        unusable: Error message of each case that cannot be prepared.
        description: Fields of ``dataset.json`` besides the lists of cases.
        notes: Further remarks for the user.
    """

    cases: list[dict[str, Any]]
    unusable: dict[str, str]
    description: dict[str, Any]
    notes: list[str]


def _cases_of(layout: Layout, folder: Path) -> list[dict[str, Any]]:
    if not layout.matches(folder, None):
        _nothing_of(layout.data_set, folder, layout.expected)
    return layout.cases(folder, None, False)


def _brats(folder: Path, options: PrepareOptions) -> Source:
    wanted = options.modalities or _BRATS_MODALITIES
    if not BRATS.matches(folder, wanted):
        _nothing_of(BRATS.data_set, folder, f"at any depth {BRATS.expected}")
    unusable: dict[str, str] = {}
    cases = brats_cases(folder, wanted, unusable)
    conventions = {case.get("convention") for case in cases}
    description = {"name": BRATS.data_set, "modality": list(wanted)}
    notes = []
    if len(conventions) == 1 and (name := conventions.pop()) is not None:
        labels = {0: "background", **LABEL_CONVENTIONS[name].labels}
        description["labels"] = {str(value): tissue for value, tissue in labels.items()}  # type: ignore[assignment]
    elif conventions - {None}:
        notes.append(
            "label maps follow several conventions, recorded with each case; training needs one: prepare them "
            "separately"
        )
    return Source(cases, unusable, description, notes)


def _msd(folder: Path, options: PrepareOptions) -> Source:
    tasks = [task for task in (folder, *sorted(folder.glob("*"))) if DECATHLON.matches(task, None)]
    if not tasks:
        _nothing_of(DECATHLON.data_set, folder, DECATHLON.expected)
    if len(tasks) > 1:
        raise DataError(
            f"{folder} has {len(tasks)} tasks of the decathlon: {', '.join(task.name for task in tasks)}. "
            "Prepare one at a time, each into its own folder."
        )
    cases = [
        case
        for case in decathlon_cases(tasks[0], options.modalities)
        if case["section"] != "test" or Path(case["image"]).exists()
    ]
    given = read_json_object(tasks[0] / "dataset.json")
    kept = ("name", "description", "reference", "licence", "license", "release", "modality", "labels")
    description = {key: given[key] for key in kept if key in given}
    if options.modalities:
        description["modality"] = list(options.modalities)
    return Source(cases, {}, description, [])


def _isic(folder: Path, options: PrepareOptions) -> Source:
    cases = _cases_of(PHOTOGRAPHS, folder)
    names = {"0": "background", "255": "lesion"}
    return Source(cases, {}, {"name": PHOTOGRAPHS.data_set, "modality": ["RGB"], "labels": names}, [])


def _iseg(folder: Path, options: PrepareOptions) -> Source:
    return Source(_cases_of(ISEG, folder), {}, {"name": ISEG.data_set, **_tissues()}, [])


def _mrbrains(folder: Path, options: PrepareOptions) -> Source:
    cases = _cases_of(MRBRAINS, folder)
    notes = []
    whole = [case["case"] for case in cases if "label" not in case]
    if whole and options.strip_skull:
        notes.append(f"not skull-stripped, because there is no label map: {', '.join(whole)}")
    return Source(cases, {}, {"name": MRBRAINS.data_set, **_tissues()}, notes)


def _tissues() -> dict[str, Any]:
    return {"modality": ["T1"], "labels": {str(value): name for value, name in enumerate(_TISSUES)}}


def _pancreas_ct(folder: Path, options: PrepareOptions) -> Source:
    labels = {
        match["number"]: path for path in walk_files(folder) if (match := _LABEL_FILE.fullmatch(path.name)) is not None
    }
    of_patient: dict[str, list[Series]] = defaultdict(list)
    for series in find_series(folder):
        of_patient[_patient(series)].append(series)
    if not of_patient:
        _nothing_of(
            "Pancreas-CT",
            folder,
            "at any depth DICOM series of CT, one or more folders per patient, and label0001.nii.gz",
        )
    cases, unusable = [], {}
    for patient, all_series in sorted(of_patient.items()):
        label = labels.pop(patient.rpartition("_")[2], None)
        try:
            series = _chosen(all_series, label)
        except DataError as error:
            unusable[patient] = str(error)
            continue
        case: dict[str, Any] = {
            "case": patient,
            "subject": patient,
            "image": [*series.files, *series.damaged],  # a damaged one fails the case by its name
            "series": f"series {series.uid} in {series.folder}",
        }
        cases.append(case if label is None else {**case, "label": str(label)})
    notes = []
    if labels:
        names = ", ".join(path.name for _, path in sorted(labels.items()))
        notes.append(f"label maps without a series, skipped: {names}")
    description = {"name": "NIH Pancreas-CT", "modality": ["CT"], "labels": {"0": "background", "1": "pancreas"}}
    return Source(cases, unusable, {**description, "licence": "CC BY 3.0"}, notes)


def _patient(series: Series) -> str:
    """Return the patient, such as ``PANCREAS_0001``, from the tag or else from a folder name."""
    for name in (series.patient, *reversed(series.folder.parts)):
        if match := re.search(r"pancreas_(\d{4})", name, re.IGNORECASE):
            return f"PANCREAS_{match[1]}"
    return series.patient or series.folder.name


def _chosen(all_series: list[Series], label: Path | None) -> Series:
    """Return the series of a patient; of several, the one with as many slices as the label map."""
    if len(all_series) == 1:
        return all_series[0]
    counts = [len(series.files) for series in all_series]
    slices = None
    if label is not None:
        try:
            slices = open_nifti(label).shape[2]
        except Exception as error:  # readers raise many types for a bad file
            raise DataError(f"{label} cannot be read ({error}). It is damaged; download it again.") from error
    fitting = [series for series in all_series if len(series.files) == slices]
    if len(fitting) == 1:
        return fitting[0]
    places = ", ".join(f"{one.folder} ({len(one.files)} slices)" for one in all_series)
    raise DataError(
        f"{len(counts)} series of one patient: {places}; the label map has {slices or 'no'} slices. Expected one "
        "series that fits: move the others elsewhere."
    )


def _nothing_of(data_set: str, folder: Path, expected: str) -> NoReturn:
    files = list(walk_files(folder))
    kinds: dict[str, int] = defaultdict(int)
    for path in files:
        kinds["".join(path.suffixes[-2:]).lower() or "without extension"] += 1
    most = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1])[:4])
    found = f"{len(files)} files ({most}), such as {files[0].relative_to(folder)}" if files else "no files"
    raise DataError(
        f"nothing of {data_set} in {folder}. Looked for {expected}; found {found}. Give the folder of the "
        "unpacked data set or of its archives."
    )


def with_unique_names(cases: Iterable[dict[str, Any]], unusable: dict[str, str]) -> list[dict[str, Any]]:
    """Return the cases with unique file names; add the others to ``unusable``."""
    chosen: dict[str, dict[str, Any]] = {}
    for case in map(with_case_names, cases):
        first = chosen.setdefault(case["case"].lower(), case)  # some file systems ignore case
        if first is not case:
            unusable[case["case"]] = (
                f"two cases are named {case['case']}; only the other one, {first['image']}, was prepared. "
                "Rename or move one of them."
            )
    return list(chosen.values())


FIND: dict[str, Callable[[Path, PrepareOptions], Source]] = {
    "brats": _brats,
    "msd": _msd,
    "isic": _isic,
    "iseg": _iseg,
    "mrbrains": _mrbrains,
    "pancreas-ct": _pancreas_ct,
}
"""Functions that find the cases of a data set in a folder, by name of the data set."""
