# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Folder layout of the MRBrainS 2013 challenge: whole heads of adults, eight labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from segan_monai.data.layout import Layout
from segan_monai.errors import DataError
from segan_monai.file_kinds import file_id, has_ending
from segan_monai.folders import existing_folder, walk_files

MRBRAINS_LABEL_VALUES = {
    "LabelsForTraining": {1: 2, 2: 2, 3: 3, 4: 3, 5: 1, 6: 1, 7: 0, 8: 0},
    "LabelsForTesting": {1: 1, 2: 2, 3: 3},
}
"""Label values of MRBrainS mapped to this project's: 1 CSF, 2 GM, 3 WM.

As defined by the challenge, cortical grey matter and basal ganglia are GM, white matter and its lesions are WM, and
extracerebral fluid and ventricles are CSF. Cerebellum and brainstem become background, as in LabelsForTesting and in
iSEG, where they are removed."""

_ENDINGS = (".nii", ".nii.gz", ".mhd")
_BESIDE = ("T2_FLAIR", "T1_IR", "T1_1mm", *MRBRAINS_LABEL_VALUES)


def mrbrains_file(path: Path) -> bool:
    """Check whether a file is the T1 of an MRBrainS case: ``T1.nii`` beside another file of the challenge."""
    if not has_ending(path, _ENDINGS) or file_id(path) != "T1":
        return False
    return any(_named(path.parent, name) for name in _BESIDE)


def _named(folder: Path, name: str) -> Path | None:
    """Return the volume called ``name`` in a folder, with any known ending, or None."""
    found = (folder / f"{name}{ending}" for known in _ENDINGS for ending in (known, known.upper()))
    return next((path for path in found if path.exists()), None)


def mrbrains_cases(dataset_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Find the cases of MRBrainS 2013: ``TrainingData/1/T1.nii``, ``LabelsForTraining.nii``, ...

    The image is the T1 on the grid of the labels (0.958x0.958x3 mm), not ``T1_1mm``. The label map is
    LabelsForTraining, or else LabelsForTesting.

    Args:
        dataset_dir: The folder, or any folder above it.

    Returns:
        Cases sorted by name, with ``case`` (``MRBrainS_1``; ``MRBrainS_TestData_1`` below ``TestData``), ``subject``,
        ``image`` and ``domain`` (``MRBrainS``). Labelled cases have ``label``, ``tissue_values`` and ``skull_strip``,
        because the images show whole heads, see ``StripByLabeld``.

    Raises:
        DataError: The folder does not exist or holds no MRBrainS files.
    """
    root = existing_folder(dataset_dir)
    cases = []
    for path in walk_files(root):
        if not mrbrains_file(path):
            continue
        folder = path.parent
        test = "TestData_" if folder.parent.name == "TestData" else ""
        name = f"MRBrainS_{test}{folder.name}"
        case: dict[str, Any] = {"case": name, "subject": name, "image": str(path), "domain": "MRBrainS"}
        labels = [(file, values) for kind, values in MRBRAINS_LABEL_VALUES.items() if (file := _named(folder, kind))]
        if labels:
            file, values = labels[0]
            case |= {"label": str(file), "tissue_values": dict(values), "skull_strip": True}
        cases.append(case)
    if not cases:
        raise DataError(
            f"no MRBrainS case in {root}: expected folders such as TrainingData/1 with T1.nii and T2_FLAIR.nii."
        )
    return sorted(cases, key=lambda case: case["case"])


MRBRAINS = Layout(
    name="MRBrainS",
    data_set="MRBrainS 2013",
    expected="at any depth TrainingData/1/T1.nii beside T2_FLAIR.nii, LabelsForTraining.nii and the like",
    matches=lambda folder, _: any(map(mrbrains_file, walk_files(folder))),
    cases=lambda folder, *_: mrbrains_cases(folder),
)
