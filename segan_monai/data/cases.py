# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""From the folder that people have to a list of cases, whatever its layout."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from segan_monai.case_names import LONGEST, is_case_name, with_case_names
from segan_monai.data.brats import LAYOUTS, brats_cases, brats_file, existing_folder
from segan_monai.data.decathlon import decathlon_cases
from segan_monai.data.iseg import iseg_cases, iseg_file
from segan_monai.data.isic import PHOTOGRAPH_LAYOUTS, isic_cases
from segan_monai.data.mrbrains import mrbrains_cases, mrbrains_file
from segan_monai.data.nnunet import by_channel, is_nnunet, nnunet_cases
from segan_monai.errors import DataError
from segan_monai.file_kinds import PICTURES, VOLUMES, file_id, has_ending, is_dicom
from segan_monai.folders import walk_files

logger = logging.getLogger(__name__)

_WITH_NAMES = ("datalist", "decathlon", "nnU-Net")  # layouts that may name their cases themselves


def find_cases(
    dataset_dir: str | os.PathLike[str] | None,
    datalist: str | os.PathLike[str] | None = None,
    modalities: Sequence[str] | None = None,
    require_labels: bool = False,
) -> list[dict[str, Any]]:
    """The cases of a data set: what every run begins with.

    In this order: the datalist, if one is given; nnU-Net's raw format; ``dataset.json`` in the folder (decathlon);
    BraTS of any year, if modalities are given; iSEG 2017 and MRBrainS 2013, both if both lie there; else every volume
    in the folder itself is a case without label, for inference, or, where names end in nnU-Net's channel numbers
    (``<case>_0000.nii.gz``), one channel of a case; else, if no modalities are given, photographs: ISIC 2017,
    ``images`` with ``masks``, or those in the folder itself.

    A case is a plain dictionary with ``case`` and ``subject`` (names), ``image`` (a path, or paths in the order of
    the modalities), ``label`` (absent if there is none), ``channels`` (only for one 4-D image: which of its channels),
    ``grade``, ``convention`` and ``domain`` (absent if unknown), and whatever else a datalist says of it.

    Args:
        dataset_dir: the folder; may be None if a datalist is given.
        datalist: a JSON file of the decathlon's form, see :func:`segan_monai.data.decathlon_cases`.
        modalities: names of the wanted modalities in channel order, such as ``("t1c", "t2", "flair")``.
        require_labels: leave out cases without label map, and say in the log how many.

    Returns:
        The cases. One line in the log says what was found.

    Raises:
        DataError: no such folder; no images; two cases of one name; labels required and none there; and whatever
            the functions for the single layouts raise.
    """
    if datalist:
        where: str | os.PathLike[str] = datalist
        layout, cases = "datalist", decathlon_cases(datalist, modalities, base_dir=dataset_dir or None)
    else:
        if not dataset_dir:
            raise DataError("no data: set --dataset_dir to a folder of images or --datalist to a JSON file of cases.")
        where = folder = existing_folder(dataset_dir)
        if is_nnunet(folder):
            layout, cases = "nnU-Net raw format", nnunet_cases(folder, modalities)
        elif (folder / "dataset.json").is_file():
            layout, cases = "decathlon dataset.json", decathlon_cases(folder, modalities)
        elif modalities and any(brats_file(path) for path in walk_files(folder)):
            layout, cases = "BraTS folders", brats_cases(folder, modalities)
        elif brains := _brains(folder):
            layout, cases = brains
        elif cases := _plain_cases(folder, len(modalities or [None])):
            layout = "plain folder of images"
        else:
            layout, cases = "photographs", ([] if modalities else isic_cases(folder)) or _nothing_in(folder)
    if not layout.startswith(_WITH_NAMES):
        cases = [with_case_names(case) for case in cases]
    _check_ids(cases, where)
    labelled = [case for case in cases if "label" in case]
    groups = Counter(str(case[key]) for key in ("grade", "domain") for case in cases if key in case)
    logger.info(
        "%s (%s): %d cases, %d labelled%s",
        where,
        layout,
        len(cases),
        len(labelled),
        "".join(f", {count} {group}" for group, count in sorted(groups.items())),
    )
    if not require_labels:
        return cases
    if not labelled:
        raise DataError(
            f"none of the {len(cases)} cases in {where} ({layout}) has a label map, and this step needs them. Expected "
            f"a dataset.json, {LAYOUTS}, {PHOTOGRAPH_LAYOUTS}, or a --datalist file whose entries name a label."
        )
    if without := [case["case"] for case in cases if "label" not in case]:
        more = ", ..." if len(without) > 5 else ""
        logger.warning("left out %d cases without label map: %s%s", len(without), ", ".join(without[:5]), more)
    return labelled


def _brains(folder: Path) -> tuple[str, list[dict[str, Any]]] | None:
    """Cases of the two challenges of brain tissue, together if the folder holds both."""
    files = list(walk_files(folder))
    found: dict[str, list[dict[str, Any]]] = {}
    if any(iseg_file(path) for path in files):
        found["iSEG"] = iseg_cases(folder)
    if any(mrbrains_file(path) for path in files):
        found["MRBrainS"] = mrbrains_cases(folder)
    return (" and ".join(found), [case for cases in found.values() for case in cases]) if found else None


def _plain_cases(folder: Path, channels: int) -> list[dict[str, Any]]:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    images = [name for name in names if has_ending(name, VOLUMES)]
    grouped = by_channel(images)
    if grouped is None or any(list(numbers) != list(range(channels)) for numbers in grouped.values()):
        grouped = {file_id(name): {0: name} for name in images}
        if len(grouped) < len(images):  # one name with two endings: the check of the names says which
            return [{"case": file_id(name), "subject": file_id(name), "image": str(folder / name)} for name in images]
    cases: list[dict[str, Any]] = []
    for case, files in grouped.items():
        paths = [str(folder / name) for name in files.values()]
        cases.append({"case": case, "subject": case, "image": paths if len(paths) > 1 else paths[0]})
    return cases


def _nothing_in(folder: Path) -> NoReturn:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    refuse_dicom(folder)
    found = f"{len(names)} other entries, such as {', '.join(names[:3])}" if names else "nothing"
    raise DataError(
        f"no cases in {folder}: found {found}. Expected images ({', '.join(VOLUMES)}) in the folder itself, a "
        f"dataset.json, with --modalities given, {LAYOUTS}, without them photographs ({', '.join(PICTURES)}) in the "
        f"folder itself or {PHOTOGRAPH_LAYOUTS}. Any other layout: write a --datalist file."
    )


def refuse_dicom(folder: Path) -> None:
    """Raise DataError for a folder without images in which, or one level below, a file is DICOM."""
    files = (path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern))[:50] if path.is_file())
    if dicom := next(filter(is_dicom, files), None):
        raise DataError(
            f"no cases in {folder}: {dicom.relative_to(folder)} is DICOM. Convert each series to one NIfTI first, for "
            "example with segan-monai prepare pancreas-ct (CT), dcm2niix or 3D Slicer."
        )


def _check_ids(cases: Sequence[dict[str, Any]], where: str | os.PathLike[str]) -> None:
    """Names of cases become names of result files, so two cases may not share one."""
    first: dict[str, dict[str, Any]] = {}
    for case in cases:
        name = case["case"]
        if not is_case_name(name):
            raise DataError(
                f"{where}: case name {str(name)[:200]!r} cannot be a file name. Give a 'case' without slashes and "
                f"control characters, of {LONGEST} bytes at most."
            )
        if name in first:
            raise DataError(
                f"{where}: two cases are called {name}: {first[name]['image']} and {case['image']}. Rename or move one "
                "of them, or name both with a field 'case' in a --datalist file."
            )
        first[name] = case
