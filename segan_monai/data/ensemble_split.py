# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Cases on which an ensemble may be evaluated: those that no member was trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from segan_monai.data.split_file import Case, cases_of_part, of_trained_patients, read_split, trained_cases
from segan_monai.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


def held_out_by_all(cases: Sequence[Case], split_files: Sequence[str], subset: str, split_by: str) -> list[Case]:
    """Return the cases of a subset for an ensemble.

    Args:
        cases: all cases.
        split_files: the split with which each member was trained. ``held_out`` takes a member without its split file
            as trained on none of the cases, and logs a warning.
        subset: ``held_out``, every case that no member was trained on, and whose patient was not (see
            ``of_trained_patients``); ``validation``, the validation cases of every member; ``training``, the cases that
            any member was trained on; ``all``, or ``test`` for the section of that name in the data set.
        split_by: must be ``subject``.

    Returns:
        The cases of the subset, in order.

    Raises:
        ConfigError: ``split_by`` is another one; ``subset`` is ``unlabeled``; or a case of ``all`` or ``test`` was
            trained on by a member.
        DataError: a split file is damaged, or missing and needed; or no case is left.
    """
    if split_by != "subject":
        raise ConfigError(
            f"--split_by {split_by} with {len(split_files)} weights: the patches of an ensemble have no common split. "
            "Evaluate each member by itself, or omit --split_by."
        )
    if subset == "unlabeled":
        raise ConfigError(
            f"--subset unlabeled with {len(split_files)} weights: expected one, because each member has unlabelled "
            "cases of its own. Evaluate each member by itself."
        )
    trained: dict[str, set[str]] = {}
    validated: list[set[str]] = []
    of_patients: set[str] = set()
    for file in split_files:
        if not Path(file).is_file() and subset not in ("training", "validation"):
            logger.warning("no split file %s: its member may have been trained on any of the cases", file)
            continue
        split = read_split(file)
        if split.get("split_by") == "patch":
            raise ConfigError(f"{file} is a split by patch, so its member has seen every case. Evaluate it by itself.")
        trained[file] = trained_cases(cases, split)
        if subset == "validation":
            validated.append({case["case"] for case in cases_of_part(cases, split, subset)})
        elif subset == "held_out":
            of_patients |= of_trained_patients(cases, split, trained[file])
    seen = set().union(*trained.values())
    if subset == "training":
        chosen = [case for case in cases if case["case"] in seen]
    elif subset == "validation":
        of_all = set.intersection(*validated)
        chosen = [case for case in cases if case["case"] in of_all]
    elif subset == "held_out":
        chosen = [case for case in cases if case["case"] not in seen | of_patients]
    else:
        chosen = [case for case in cases if subset == "all" or case.get("section") == "test"]
        _refuse_trained([case["case"] for case in chosen], trained, subset)
    if not chosen:
        raise DataError(
            f"no case is left in subset {subset!r} of {len(cases)} cases for an ensemble: {_counts(trained)}. Folds of "
            "one data set hold out each case once, so their ensemble has no held-out case there. Evaluate it on other "
            "cases, or each fold by itself."
        )
    return chosen


def _refuse_trained(names: Sequence[str], trained: Mapping[str, set[str]], subset: str) -> None:
    seen = [name for name in names if any(name in of_member for of_member in trained.values())]
    if not seen:
        return
    by = [file for file, of_member in trained.items() if seen[0] in of_member]
    raise ConfigError(
        f"--subset {subset}: {len(seen)} of {len(names)} cases were trained on by a member of the ensemble, such as "
        f"{seen[0]} ({', '.join(by)}). Omit --subset to evaluate the cases that no member was trained on; --subset "
        "training scores the others."
    )


def _counts(trained: Mapping[str, set[str]]) -> str:
    return ", ".join(f"{file} names {len(names)} as trained on" for file, names in trained.items()) or "no split files"
