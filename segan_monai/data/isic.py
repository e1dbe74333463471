# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Folder layouts of photographs with masks: ISIC 2017 and 2018, ``images`` and ``masks``, photographs alone."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from segan_monai.data.layout import Layout
from segan_monai.data.unread import warn, warn_of_unread
from segan_monai.errors import DataError
from segan_monai.file_kinds import OTHER_PICTURES, PICTURES, has_ending
from segan_monai.folders import existing_folder

# segmentation tasks of the challenges: section, folder of photographs, folder of masks
_OFFICIAL = (
    ("training", "ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
    ("validation", "ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
    ("test", "ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
    ("training", "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    ("validation", "ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
    ("test", "ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
)
_MASK = re.compile(r"(?P<case>.+?)(_segmentation|_mask|_seg)?\.(png|bmp)", re.IGNORECASE | re.DOTALL)
_OF_MASKS = (".png", ".bmp")
_EXPECTED = (
    "ISIC 2017 (ISIC-2017_Training_Data/<case>.jpg, ISIC-2017_Training_Part1_GroundTruth/<case>_segmentation.png), "
    "ISIC 2018 (ISIC2018_Task1-2_Training_Input, ISIC2018_Task1_Training_GroundTruth), "
    "images/<case>.jpg with masks/<case>_segmentation.png"
)


def isic_cases(dataset_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Find the cases of a folder of dermoscopic photographs.

    The first layout that matches is used:

    1. the unpacked folders of ISIC 2017 and 2018: training, validation and test, as far as they exist;
    2. ``images`` and ``masks`` (``<case>_segmentation.png``, ``<case>_mask.png``, ``<case>_seg.png`` or
       ``<case>.png``);
    3. photographs directly in the folder.

    Superpixels (``<case>_superpixels.png``) and tables are ignored. Photographs without a mask are cases without a
    label, for inference or as unlabelled images of a training.

    Args:
        dataset_dir: The folder.

    Returns:
        Cases sorted by name, with ``case``, ``subject`` (each photograph, because ISIC does not name patients),
        ``image``, ``label`` if there are masks, and for ISIC ``section`` (``training``, ``validation`` or ``test``).
        Empty if the folder holds no photographs.

    Raises:
        DataError: The folder does not exist; a mask has no photograph, or a photograph has two masks.
    """
    root = existing_folder(dataset_dir)
    cases = [
        {**case, "section": section}
        for section, images, masks in _OFFICIAL
        if (root / images).is_dir()
        for case in _paired(root / images, root / masks)
    ]
    if not cases and (root / "images").is_dir():
        cases = _paired(root / "images", root / "masks")
    if not cases:
        cases = _paired(root, None)
    return sorted(cases, key=lambda case: case["case"])


def _paired(images: Path, masks: Path | None) -> list[dict[str, Any]]:
    photographs = [path for path in _files(images, PICTURES) if not path.stem.endswith("_superpixels")]
    cases = [{"case": path.stem, "subject": path.stem, "image": str(path)} for path in photographs]
    if masks is None or not masks.is_dir():
        return cases
    names = {path.stem for path in photographs}
    of_case: dict[str, Path] = {}
    for path in _files(masks, _OF_MASKS):
        match = _MASK.fullmatch(path.name)
        case = path.stem if path.stem in names or not match else match["case"]
        if case in of_case:
            raise DataError(f"{case} has two masks, {of_case[case]} and {path}. Expected one: keep one of them.")
        of_case[case] = path
    if orphans := sorted(of_case.keys() - names):
        raise DataError(
            f"{of_case[orphans[0]]} has no photograph: {len(orphans)} of {len(of_case)} masks have none in {images}, "
            f"which holds {len(photographs)} photographs. Expected {orphans[0]}.jpg there: add the photographs or move "
            "these masks elsewhere."
        )
    return [case | ({"label": str(of_case[name])} if (name := case["case"]) in of_case else {}) for case in cases]


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if has_ending(p, endings) and not p.name.startswith("."))


def _with_warnings(folder: Path) -> list[dict[str, Any]]:
    """Return the cases of a folder, and name in the log what beside them is not read."""
    cases = isic_cases(folder)
    for images in sorted({Path(case["image"]).parent for case in cases}):
        warn_of_unread(images, PICTURES)
    for masks in sorted({Path(case["label"]).parent for case in cases if "label" in case}):
        unread = [path.name for path in _files(masks, (*PICTURES, *OTHER_PICTURES)) if not has_ending(path, _OF_MASKS)]
        warn(masks, unread, f"Masks end in {' or '.join(_OF_MASKS)}, because other formats change their values")
    return cases


PHOTOGRAPHS = Layout(
    name="photographs",
    data_set="ISIC",
    expected=_EXPECTED,
    matches=lambda folder, modalities: not modalities and bool(isic_cases(folder)),
    cases=lambda folder, *_: _with_warnings(folder),
)
