# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Finds the cases of a data set in any supported layout."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segan_monai.case_names import LONGEST, is_case_name, with_case_names
from segan_monai.data.brats import BRATS
from segan_monai.data.decathlon import decathlon_cases
from segan_monai.data.isic import PHOTOGRAPHS
from segan_monai.data.layouts import LAYOUTS
from segan_monai.data.plain import PLAIN, single_case
from segan_monai.data.prepared import refuse_unfinished
from segan_monai.data.unlabeled import count_text, omit_unlabelled
from segan_monai.errors import DataError
from segan_monai.file_kinds import PICTURES, is_dicom
from segan_monai.folders import existing_images

logger = logging.getLogger(__name__)


def find_cases(
    dataset_dir: str | os.PathLike[str] | None,
    datalist: str | os.PathLike[str] | None = None,
    modalities: Sequence[str] | None = None,
    require_labels: bool = False,
    keep_incomplete: bool = False,
    keep_unlabeled: bool = False,
) -> list[dict[str, Any]]:
    """Find the cases of a data set.

    The first layout that matches is used:

    1. the datalist, if given;
    2. nnU-Net's raw format;
    3. ``dataset.json`` in the folder (Medical Segmentation Decathlon);
    4. BraTS of any year, if modalities are given;
    5. iSEG 2017 and MRBrainS 2013, or both together;
    6. volumes directly in the folder, except label maps, see ``plain_cases``. Each is a case without a label, for
       inference. Where names end in nnU-Net's channel numbers (``<case>_0000.nii.gz``), each is one channel of a case;
    7. photographs, if no modalities are given: ISIC 2017 and 2018, ``images`` with ``masks``, or photographs directly
       in the folder.

    The path of a single volume or photograph is a data set of one case, without a label.

    A case is a plain dictionary:

    - ``case`` and ``subject``: names.
    - ``image``: a path, or paths in the order of the modalities.
    - ``label``: path of the label map; absent if there is none.
    - ``channels``: indices of the channels to use; only for a 4-D image.
    - ``grade``, ``convention`` and ``domain``: absent if unknown.
    - ``unusable``: why the case cannot be used; absent for all others. See ``keep_incomplete``.
    - further fields from the datalist.

    Args:
        dataset_dir: The folder, or a single image; may be None if a datalist is given.
        datalist: JSON file in the decathlon's format, see ``segan_monai.data.decathlon_cases``.
        modalities: Names of the modalities in channel order, such as ``("t1c", "t2", "flair")``.
        require_labels: Omit cases without a label map, and log their number.
        keep_incomplete: Return a case that lacks a file of an image, such as one modality, with the reason under
            ``unusable``; ``CaseDataset`` and ``CaseEvaluator`` record it as failed. By default, it is an error.
        keep_unlabeled: With ``require_labels``, return also the cases without a label map, to train on their images.

    Returns:
        The cases. A log line summarizes what was found.

    Raises:
        DataError: There is neither a folder nor a file, or it holds no images, or no case can be used; the preparation
            of the folder has not ended; two cases have the same name; labels are required and there are none; or the
            files do not conform to their layout.
    """
    if datalist:
        where: str | os.PathLike[str] = datalist
        layout = "datalist"
        cases = decathlon_cases(datalist, modalities, dataset_dir or None, keep_incomplete)
    else:
        if not dataset_dir:
            raise DataError("no data: set --dataset_dir to a folder of images or --datalist to a JSON file of cases.")
        where = folder = existing_images(dataset_dir)
        if folder.is_file():
            layout, cases = "single file", [with_case_names(case) for case in single_case(folder)]
        else:
            refuse_unfinished(folder)
            layout, cases = _cases_in(folder, modalities, keep_incomplete)
    _check_ids(cases, where)
    if all("unusable" in case for case in cases):
        raise DataError(cases[0]["unusable"])
    labelled = [case for case in cases if "label" in case]
    groups = Counter(str(case[key]) for key in ("grade", "domain") for case in cases if key in case)
    logger.info(
        "%s (%s): %d cases, %s%s",
        where,
        layout,
        len(cases),
        count_text(len(labelled), len(cases) - len(labelled) if labelled else 0),
        "".join(f", {count} {group}" for group, count in sorted(groups.items())),
    )
    if not require_labels:
        return cases
    if not labelled:
        raise DataError(
            f"none of the {len(cases)} cases in {where} ({layout}) has a label map, and this step needs them. Expected "
            f"a dataset.json, {BRATS.expected}, {PHOTOGRAPHS.expected}, or a --datalist file whose entries name a "
            "label."
        )
    return cases if keep_unlabeled else omit_unlabelled(cases)


def _cases_in(
    folder: Path, modalities: Sequence[str] | None, keep_incomplete: bool
) -> tuple[str, list[dict[str, Any]]]:
    """Return the name of the first layout that matches, and the cases of the folder."""
    for group in LAYOUTS:
        if matching := [layout for layout in group if layout.matches(folder, modalities)]:
            cases = [
                case if layout.names_cases else with_case_names(case)
                for layout in matching
                for case in layout.cases(folder, modalities, keep_incomplete)
            ]
            return " and ".join(layout.name for layout in matching), cases
    raise _nothing_in(folder)


def _nothing_in(folder: Path) -> DataError:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    refuse_dicom(folder)
    found = f"{len(names)} other entries, such as {', '.join(names[:3])}" if names else "nothing"
    return DataError(
        f"no cases in {folder}: found {found}. Expected {PLAIN.expected} or a dataset.json; with "
        f"--modalities, {BRATS.expected}; without, photographs ({', '.join(PICTURES)}) in the folder itself or "
        f"{PHOTOGRAPHS.expected}. For any other layout, write a --datalist file."
    )


def refuse_dicom(folder: Path) -> None:
    """Raise DataError if the folder or one of its subfolders holds a DICOM file; call it if no images were found."""
    files = (path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern))[:50] if path.is_file())
    if dicom := next(filter(is_dicom, files), None):
        raise DataError(
            f"no cases in {folder}: {dicom.relative_to(folder)} is DICOM. To segment a study, use segan-monai dicom "
            "BUNDLE STUDY. To train, convert each series to one NIfTI file first, for example with segan-monai prepare "
            "pancreas-ct (CT), dcm2niix or 3D Slicer."
        )


def _check_ids(cases: Sequence[dict[str, Any]], where: str | os.PathLike[str]) -> None:
    """Check that case names are valid and unique, because result files are named after them."""
    first: dict[str, dict[str, Any]] = {}
    for case in cases:
        name = case["case"]
        if not is_case_name(name):
            raise DataError(
                f"{where}: case name {str(name)[:200]!r} cannot be a file name. Set 'case' to a name without slashes "
                f"and control characters, of at most {LONGEST} bytes."
            )
        if name in first:
            raise DataError(
                f"{where}: two cases are named {name}: {first[name]['image']} and {case['image']}. Rename or move one "
                "of them, or name both in the field 'case' of a --datalist file."
            )
        first[name] = case
