# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Unlabelled cases: which there are, which labels a run hides, and which images it may train on."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from segan_monai.data.case_digest import case_digest
from segan_monai.data.split_file import TRAINED_ON
from segan_monai.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

Case = dict[str, Any]


def by_label(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Return the labelled and the unlabelled cases, in order.

    If no case has a label, all count as labelled: such a list names cases to split, without their files.
    """
    if not any("label" in case for case in cases):
        return list(cases), []
    return [case for case in cases if "label" in case], [case for case in cases if "label" not in case]


def count_text(labelled: int, unlabelled: int) -> str:
    """Return numbers of cases as text: ``8 labelled, 57 unlabelled``, or ``8 labelled``."""
    return f"{labelled} labelled" + (f", {unlabelled} unlabelled" if unlabelled else "")


def hide_labels(
    training: Sequence[Case], labeled_cases: int | Sequence[str] | None, seed: int, by: str = "case"
) -> tuple[list[Case], list[Case]]:
    """Keep the labels of some training cases only, to measure what labels are worth [ours].

    The cases are shuffled and the first ones keep their labels. With the same seed, a smaller number is therefore a
    subset of a larger one.

    Args:
        training: labelled cases.
        labeled_cases: number of cases that keep their labels, or their names; None for all.
        seed: of the shuffle.
        by: ``case``; or ``subject`` to count subjects, all of whose cases keep their labels.

    Returns:
        Cases that keep their labels, in order; and copies of the others without ``label``.

    Raises:
        ConfigError: ``labeled_cases`` is an empty list or a text; or below 1 or above the number of training cases, or
            of their subjects; or names one that is not in training.
    """
    if labeled_cases is None:
        return list(training), []
    names = sorted({case[by] for case in training})
    if isinstance(labeled_cases, str) or labeled_cases == []:
        raise ConfigError(f"labeled_cases is {labeled_cases!r}; expected a number, or a list of one or more names.")
    kept = set(_drawn(names, labeled_cases, seed, by) if isinstance(labeled_cases, int) else labeled_cases)
    if unknown := sorted(kept - set(names)):
        raise ConfigError(
            f"labeled_cases names {len(unknown)} {by}s that are not in training or have no label, such as "
            f"{unknown[0]}; expected some of the {len(names)} training {by}s, such as {names[0]}."
        )
    hidden = [without_label(case) for case in training if case[by] not in kept]
    return [case for case in training if case[by] in kept], hidden


def _drawn(names: list[str], count: int, seed: int, by: str) -> list[str]:
    if not 1 <= count <= len(names):
        raise ConfigError(
            f"labeled_cases is {count}, but {len(names)} training {by}s have a label. Pass a number from 1 to "
            f"{len(names)}, or null to keep all labels."
        )
    shuffled = list(names)
    random.Random(f"{seed} labeled").shuffle(shuffled)
    return shuffled[:count]


def omit_unlabelled(cases: Sequence[Case]) -> list[Case]:
    """Return the labelled cases, and log the names of the others."""
    if without := [case["case"] for case in cases if "label" not in case]:
        more = ", ..." if len(without) > 5 else ""
        logger.warning("omitted %d cases without label map: %s%s", len(without), ", ".join(without[:5]), more)
    return [case for case in cases if "label" in case]


def without_label(case: Case) -> Case:
    """Return a copy of a case without its label map."""
    return {key: value for key, value in case.items() if key != "label"}


def labelled_training_cases(cases: Sequence[Case], split: Mapping[str, Sequence[Case]]) -> int:
    """Return the number of training cases that have a label in the data set, hidden ones included.

    It does not depend on ``labeled_cases``. As ``cases_per_epoch``, it gives a training with few labels as many
    iterations per epoch as one with all of them.

    Args:
        cases: all cases, see ``find_cases``.
        split: result of ``split_cases``.
    """
    labelled = {case["case"] for case in cases if "label" in case}
    return sum(case["case"] in labelled for part in TRAINED_ON for case in split.get(part, ()))


def not_held_out(
    cases: Sequence[Case],
    split: Mapping[str, Sequence[Case]],
    apart: Collection[str] = (),
    held_out: Sequence[Case] = (),
) -> list[Case]:
    """Return the cases on which a run may train, with or without their labels.

    Omitted are cases of held-out subjects, and copies of held-out images under another name.

    Args:
        cases: cases that are in no part of the split yet.
        split: ``training`` and ``validation``.
        apart: names of cases that the data set assigns to the validation set.
        held_out: cases held out in addition to those of the split, such as a section ``test``.
    """
    if not cases:
        return []
    trained = {case["case"] for case in split["training"]}
    judged = [case for case in split["validation"] if case["case"] not in trained]  # held_out 0: all are on both sides
    judged += held_out
    subjects = {case["subject"] for case in judged}
    images = {digest for case in judged if (digest := case_digest(case))}
    return [
        case
        for case in cases
        if case["case"] not in apart and case["subject"] not in subjects and case_digest(case) not in images
    ]


def unlabeled_for_training(
    unlabelled: Sequence[Case],
    split: Mapping[str, Sequence[Case]],
    held_out: Sequence[Case],
    fold: int | None,
    max_cases: int | None,
    seed: int,
) -> list[Case]:
    """Return the unlabelled cases on which a run trains.

    Args:
        unlabelled: unlabelled cases of all sections but those in ``held_out``.
        split: ``training`` and ``validation``.
        held_out: cases of sections that are never trained on.
        fold: the fold of the data set that is held out; None if it has none.
        max_cases: largest number of cases, drawn with the seed; None for all.
        seed: of the draw.
    """
    apart = {
        case["case"]
        for case in unlabelled
        if case.get("section") == "validation" or (fold is not None and case.get("fold") == fold)
    }
    usable = not_held_out(unlabelled, split, apart, held_out)
    names = {case["case"] for case in usable}
    if omitted := [case["case"] for case in unlabelled if case["case"] not in names]:
        logger.info(
            "%d unlabelled cases are of held-out patients and stay unused, such as %s", len(omitted), omitted[0]
        )
    if max_cases is not None and max_cases < len(usable):
        drawn = random.Random(f"{seed} {max_cases} unlabeled").sample(range(len(usable)), max(max_cases, 0))
        usable = [usable[index] for index in sorted(drawn)]
    return usable


def is_labelled_in_part(case: Mapping[str, Any]) -> bool:
    """Return whether a case says that its label map is incomplete."""
    return "labelled_regions" in case or "annotated_slices" in case


def check_unlabeled(split: Mapping[str, Sequence[Case]], require_unlabeled: bool) -> None:
    """Log the numbers of training cases that are labelled, labelled in part, and unlabelled.

    Raises:
        DataError: there are no cases of the last two kinds, and they are required.
    """
    unlabeled = split.get("unlabeled", [])
    in_part = sum(map(is_labelled_in_part, split["training"]))
    if require_unlabeled and not unlabeled and not in_part:
        raise DataError(
            f"there are no unlabelled cases to train on, besides {len(split['training'])} labelled ones. List images "
            "under 'unlabeled' in the datalist, put them beside the labelled ones without a label map, pass "
            "--labeled_cases to hide labels, or pass --unlabeled ignore."
        )
    if unlabeled:
        numbers = count_text(len(split["training"]), len(unlabeled))
        logger.info("training cases: %s; validation cases: %d", numbers, len(split["validation"]))
    if in_part:
        logger.info("%d training cases are labelled in part", in_part)
