# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Subsets of a split on which a trained model may be evaluated."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.data.ensemble_split import held_out_by_all
from segan_monai.data.split_file import (
    Case,
    cases_of_part,
    of_trained_patients,
    patient_of,
    read_split,
    trained_cases,
    trained_patients,
)
from segan_monai.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


def held_out(
    cases: Sequence[Case],
    split_file: str | os.PathLike[str] | Sequence[str] | None,
    subset: str = "held_out",
    split_by: str = "subject",
) -> list[Case]:
    """Return the cases on which a trained model may be evaluated.

    Args:
        cases: all cases.
        split_file: the split with which the model was trained; of an ensemble a list, see ``held_out_by_all``. Without
            it, ``held_out`` returns all cases and logs a warning.
        subset: ``held_out``, every case that was not trained on, with or without its label, whatever its name, and
            whose patient was not (see ``of_trained_patients``); ``training``, ``validation`` or ``all``; ``unlabeled``,
            training cases whose labels were hidden; or ``test``, the section of that name in the data set; a warning
            names cases of it that were trained on, or whose patients were.
        split_by: ``subject``, or ``patch`` for a split of patches: then all its cases are returned, whatever the
            subset, because each has patches of every part, see ``patches_of_split``.

    Returns:
        The cases of the subset, in order.

    Raises:
        ConfigError: unknown subset, or the split is not by ``split_by``.
        DataError: the split file is needed and missing or damaged, or no case is left.
    """
    if subset not in ("held_out", "training", "validation", "test", "unlabeled", "all"):
        raise ConfigError(f"subset={subset!r}: choose held_out, training, validation, test, unlabeled or all.")
    if isinstance(split_file, Sequence) and not isinstance(split_file, str):
        return held_out_by_all(cases, split_file, subset, split_by)
    if split_by == "patch":
        return cases_of_part(cases, patch_split(split_file), "training")
    if subset == "all":
        chosen = list(cases)
    elif subset == "test":
        chosen = [case for case in cases if case.get("section") == "test"]
        if split_file and Path(split_file).is_file():
            _warn_of_trained(chosen, read_split(split_file))
    elif subset == "held_out" and not (split_file and Path(split_file).is_file()):
        logger.warning("no split file %s: taking all %d cases, which may have been trained on", split_file, len(cases))
        chosen = list(cases)
    else:
        split = read_split(split_file or "")
        if split.get("split_by") == "patch" and subset == "held_out":
            raise ConfigError(
                f"{split_file} is a split by patch: every case has training patches, so none is held out. Pass "
                "--split_by patch to score its test patches, or --subset all."
            )
        if subset == "held_out":
            trained = trained_cases(cases, split)
            excluded = trained | of_trained_patients(cases, split, trained)
            chosen = [case for case in cases if case["case"] not in excluded]
        else:
            chosen = cases_of_part(cases, split, subset)
    if not chosen:
        raise DataError(
            f"no case is left in subset {subset!r} of {len(cases)} cases (split file {split_file}). Check that "
            "--dataset_dir holds the data set of that split, or choose another subset."
        )
    return chosen


def _warn_of_trained(cases: Sequence[Case], split: Mapping[str, Any]) -> None:
    """Warn if a split trains on cases, or on other cases of their patients."""
    trained, patients = trained_cases(cases, split), trained_patients(split)
    if seen := [case["case"] for case in cases if case["case"] in trained or patient_of(case) in patients]:
        logger.warning(
            "--subset test: the weights were trained on %d of %d cases or on other cases of their patients, such as "
            "%s. Their results are too good.",
            len(seen),
            len(cases),
            seen[0],
        )


def patch_split(split_file: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Read a split by patch.

    Raises:
        ConfigError: the split is by subject, or of an earlier version that did not record how patches were drawn.
        DataError: the file is missing or damaged.
    """
    split = read_split(split_file or "")
    if "patch_seed" not in split:
        raise ConfigError(
            f"--split_by patch: {split_file} has no record of the patches of a training by patch. Omit --split_by, or "
            "train with --split_by patch."
        )
    stride, seed = split.get("patch_stride"), split["patch_seed"]
    if not isinstance(seed, int) or not _is_stride(stride):
        raise DataError(
            f"{split_file} is not a split file: 'patch_seed' is {seed!r} and 'patch_stride' {stride!r}; expected a "
            "whole number, and a list of three. Write it again by training."
        )
    return split


def _is_stride(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(step, int) and step > 0 for step in value)


def patches_of_split(split_file: str | os.PathLike[str] | None, subset: str, split_by: str) -> dict[str, Any]:
    """Return the arguments with which ``TissueCentresd`` finds the patches of a subset.

    Args:
        split_file: the split with which the model was trained.
        subset: ``held_out`` or ``test`` for the test patches, ``training``, ``validation`` or ``all``.
        split_by: ``patch``; for anything else the result is all patches at a stride of 8.

    Returns:
        ``stride``, ``seed`` and ``part``.

    Raises:
        ConfigError, DataError: as ``patch_split`` does.
    """
    if split_by != "patch":
        return {"stride": [8, 8, 8], "seed": 0, "part": None}
    split = patch_split(split_file)
    part = {"held_out": "test", "all": None}.get(subset, subset)
    return {"stride": split["patch_stride"], "seed": split["patch_seed"], "part": part}
