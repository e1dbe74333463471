# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""CT data sets of volumes or of slices saved as pictures: a folder of images beside a folder of masks."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from segan_monai.case_names import with_case_names
from segan_monai.data.cases import find_cases, refuse_dicom
from segan_monai.data.unlabeled import by_label, count_text, omit_unlabelled
from segan_monai.data.unread import warn_of_unread
from segan_monai.errors import ConfigError, DataError
from segan_monai.file_kinds import PICTURES, VOLUMES, file_id, has_ending, is_picture
from segan_monai.folders import existing_images

logger = logging.getLogger(__name__)

_FILES = (*VOLUMES, *PICTURES)
_MASK_FOLDERS = ("masks", "labels")


def ct_cases(
    dataset_dir: str | os.PathLike[str] | None,
    datalist: str | os.PathLike[str] | None = None,
    subject_pattern: str = "(.+)-[0-9]+",
    require_labels: bool = False,
    keep_incomplete: bool = False,
    keep_unlabeled: bool = False,
) -> list[dict[str, Any]]:
    """Find the cases of a folder of CT volumes, or of axial slices saved as pictures.

    Expects a folder ``images`` with ``masks`` or ``labels`` beside it. An image and its mask have the same name, apart
    from the extension; NIH's ``label0001.nii.gz`` belongs to ``PANCREAS_0001.nii.gz``. Images without a mask are cases
    without a label. Other layouts are read by ``find_cases``.

    Args:
        dataset_dir: The folder.
        datalist: A datalist to use instead, see ``find_cases``.
        subject_pattern: Regular expression. Where it matches the whole name of a picture, its first group is the
            patient, such as ``PANCREAS_0001`` in ``PANCREAS_0001-1106``. All slices of a patient then stay in one part
            of the split.
        require_labels: Omit cases without a mask, and log their names.
        keep_incomplete: See ``find_cases``.
        keep_unlabeled: See ``find_cases``.

    Returns:
        Cases sorted by name, in the form that ``find_cases`` returns.

    Raises:
        DataError: The folder does not exist; two files have the same name; a mask has no image; labels are required and
            there are none; or ``find_cases`` raises it.
        ConfigError: The pattern is not a regular expression with a group.
    """
    try:
        pattern = re.compile(subject_pattern)
        if not pattern.groups:
            raise re.error("no group")
    except re.error as error:
        raise ConfigError(
            f"subject_pattern '{subject_pattern}' cannot be used ({error}); expected a regular expression whose first "
            "group is the patient, such as '(.+)-[0-9]+'."
        ) from error
    root = None if datalist or not dataset_dir else existing_images(dataset_dir)
    if root is None or not (root / "images").is_dir() or (root / "dataset.json").is_file():
        cases = find_cases(
            dataset_dir,
            datalist,
            require_labels=require_labels,
            keep_incomplete=keep_incomplete,
            keep_unlabeled=keep_unlabeled,
        )
    else:
        cases = _paired(root / "images", next((root / n for n in _MASK_FOLDERS if (root / n).is_dir()), None))
        warn_of_unread(root / "images", _FILES)
        cases = [with_case_names(case) for case in cases]
        labelled, unlabelled = by_label(cases)
        numbers = f", {count_text(len(labelled), len(unlabelled))}" if unlabelled else ""
        logger.info("%s (images and masks): %d cases%s", root, len(cases), numbers)
        if require_labels and not any("label" in case for case in cases):
            raise DataError(f"{root} has a folder 'images' but none of {_MASK_FOLDERS}, and this step needs masks.")
        if require_labels and not keep_unlabeled:
            cases = omit_unlabelled(cases)
    for case in cases:
        of_slice = is_picture(case["image"]) and case["subject"] == case["case"]
        match = pattern.fullmatch(case["case"]) if of_slice else None
        case["subject"] = match[1] if match else case["subject"]
    return cases


def _paired(images: Path, masks: Path | None) -> list[dict[str, Any]]:
    found = _by_name(images)
    if not found:
        refuse_dicom(images)
        raise DataError(f"no images in {images}. Expected files with one of the endings {', '.join(_FILES)}.")
    cases = [{"case": name, "subject": name, "image": str(file)} for name, file in sorted(found.items())]
    if masks is None:
        return cases
    of_name = _by_name(masks)
    for name in found:  # PANCREAS_0001.nii.gz and label0001.nii.gz
        number = name.rpartition("_")[2]
        if name not in of_name and f"label{number}" in of_name:
            of_name[name] = of_name.pop(f"label{number}")
    if missing := sorted(of_name.keys() - found.keys()):
        raise DataError(
            f"{of_name[missing[0]]} has no image: {len(missing)} of {len(of_name)} masks have none of the same name in "
            f"{images}, which holds {len(found)}. Expected {images / missing[0]} with any of the endings "
            f"{', '.join(_FILES)}: add them, or move these masks elsewhere."
        )
    return [case | ({"label": str(of_name[name])} if (name := case["case"]) in of_name else {}) for case in cases]


def _by_name(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or not has_ending(file, _FILES):
            continue
        name = file_id(file)
        if name in files:
            raise DataError(f"{files[name]} and {file} have the same name. Expected one: move the other elsewhere.")
        files[name] = file
    return files
