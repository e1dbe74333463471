# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Folder layout of the iSEG 2017 challenge: T1 and T2 of six-month-old infants, three tissues."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from segan_monai.data.layout import Layout
from segan_monai.errors import DataError
from segan_monai.folders import existing_folder, walk_files

ISEG_LABEL_VALUES = {10: 1, 150: 2, 250: 3}
"""Label values of iSEG (CSF, grey matter, white matter) mapped to this project's: 1 CSF, 2 GM, 3 WM."""

_FILE = re.compile(r"(?P<subject>subject-\d+)-(?P<kind>T1|T2|label)\.(?P<ext>hdr|img|nii|nii\.gz)", re.IGNORECASE)


def iseg_file(path: Path) -> tuple[str, str] | None:
    """Return subject and kind (``t1``, ``t2``, ``label``) of an iSEG file; None for any other and for ``.img``."""
    match = _FILE.fullmatch(path.name)
    if match is None or match["ext"].lower() == "img":
        return None
    return match["subject"].lower(), match["kind"].lower()


def iseg_cases(dataset_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Find the cases of iSEG 2017.

    Files are named ``subject-1-T1.hdr/.img`` and ``subject-1-label.hdr/.img`` (Analyze), or end in ``.nii`` or
    ``.nii.gz``.

    Args:
        dataset_dir: The folder, or any folder above it.

    Returns:
        Cases sorted by name, with ``case`` (``iSEG_subject-1``), ``subject``, ``image`` (the T1) and ``domain``
        (``iSEG``). Labelled cases have ``label`` and ``tissue_values``, see ``RelabelCased``.

    Raises:
        DataError: The folder does not exist or holds no iSEG files; a subject has no T1 or two files of one kind; a
            header has no voxel file.
    """
    root = existing_folder(dataset_dir)
    files: dict[str, dict[str, Path]] = {}
    for path in walk_files(root):
        if found := iseg_file(path):
            subject, kind = found
            of_subject = files.setdefault(subject, {})
            if kind in of_subject:
                raise DataError(f"iSEG {subject} has two files for {kind}: {of_subject[kind]} and {path}. Keep one.")
            of_subject[kind] = path
            if path.suffix.lower() == ".hdr" and not any(path.with_suffix(ext).exists() for ext in (".img", ".IMG")):
                raise DataError(f"{path} has no {path.with_suffix('.img').name} beside it for the voxels. Add it.")
    if not files:
        raise DataError(f"no iSEG case in {root}: expected subject-1-T1.hdr and .img, subject-1-label.hdr and .img.")
    cases = []
    for subject, of_subject in files.items():
        if "t1" not in of_subject:
            names = ", ".join(path.name for path in of_subject.values())
            raise DataError(f"iSEG {subject} in {root} has no T1, only {names}. Add {subject}-T1.hdr and .img.")
        case: dict[str, Any] = {
            "case": f"iSEG_{subject}",
            "subject": f"iSEG_{subject}",
            "image": str(of_subject["t1"]),
            "domain": "iSEG",
        }
        if "label" in of_subject:
            case |= {"label": str(of_subject["label"]), "tissue_values": dict(ISEG_LABEL_VALUES)}
        cases.append(case)
    return sorted(cases, key=lambda case: case["case"])


ISEG = Layout(
    name="iSEG",
    data_set="iSEG 2017",
    expected="at any depth subject-1-T1.hdr and .img, subject-1-label.hdr and .img",
    matches=lambda folder, _: any(map(iseg_file, walk_files(folder))),
    cases=lambda folder, *_: iseg_cases(folder),
)
