# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Which cases are for training and which are kept out: by subject, stratified, seeded, and written down."""

from __future__ import annotations

import json
import logging
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, DataError
from segan_monai.json_files import read_json

logger = logging.getLogger(__name__)

Case = dict[str, Any]


def split_cases(
    cases: Sequence[Case],
    folds: int = 10,
    fold: int = 0,
    seed: int = 0,
    file: str | os.PathLike[str] | None = None,
    max_cases: int | None = None,
    held_out: float | None = None,
    use_sections: bool = True,
) -> dict[str, list[Case]]:
    """Split cases into training and validation.

    The subjects of each grade are shuffled and dealt to the folds in turn; fold number ``fold`` is the validation
    set. All cases of a subject stay together, and the folds' numbers of subjects differ by at most one, in total and
    within each grade: ten folds are the 9:1 split within each grade of the SegAN paper (BraTS 2015). The result depends
    neither on the order of the cases nor on any global random state.

    If cases of a datalist's section ``validation`` are among them (field ``section``), that is the split and no folds
    are made. Cases of its section ``test`` go to neither side. The same holds for the three parts of ISIC 2017.

    Args:
        cases: as :func:`segan_monai.data.find_cases` returns them.
        folds: number of folds, at least 2.
        fold: which of them is the validation set, from 0.
        seed: of the shuffle.
        file: write the split to this JSON file.
        max_cases: use so many cases only, drawn with the seed: for a quick look at a large data set.
        held_out: instead of folds, draw the cases of so many subjects as validation set, or, below 1, of this share of
            them (500 of 2,000, or 0.25, in the report of SegAN on ISIC 2017). 0 puts all cases on both sides, to see
            whether a network can overfit; no measure of anything else.
        use_sections: whether a section ``validation`` is the split. If not, ``training`` is split as if it were alone.

    Returns:
        ``training`` and ``validation``: lists of cases, sorted by name.

    Raises:
        DataError: no cases for training, or fewer subjects than folds or than ``held_out``.
        ConfigError: ``folds``, ``fold`` or ``held_out`` out of range.
    """
    apart = ("test",) if use_sections else ("test", "validation")
    usable = sorted((case for case in cases if case.get("section") not in apart), key=lambda case: case["case"])
    if max_cases is not None and max_cases < len(usable):
        drawn = random.Random(f"{seed} {max_cases}").sample(range(len(usable)), max(max_cases, 0))
        usable = [usable[index] for index in sorted(drawn)]
    explicit = any(case.get("section") == "validation" for case in usable)
    if explicit:
        validation = [case for case in usable if case.get("section") == "validation"]
    elif held_out is not None:
        kept_out = _draw(usable, held_out, seed)
        validation = [case for case in usable if case["subject"] in kept_out]
    else:
        fold_of = _deal(usable, folds, fold, seed)
        validation = [case for case in usable if fold_of[case["subject"]] == fold]
    validation_ids = {case["case"] for case in validation}
    split = {"training": [case for case in usable if case["case"] not in validation_ids], "validation": validation}
    if held_out == 0 and not explicit:
        split["validation"] = list(usable)
    if not split["training"]:
        raise DataError(f"no cases for training among {len(cases)}: the datalist's section 'training' is empty.")
    if explicit and (shared := {c["subject"] for c in validation} & {c["subject"] for c in split["training"]}):
        raise DataError(
            f"{len(shared)} subjects are in both sections 'training' and 'validation' of the datalist, such as "
            f"{min(shared)}. Move all cases of a subject to one section."
        )
    if file:
        how: dict[str, float] = {"folds": folds, "fold": fold} if held_out is None else {"held_out": held_out}
        write_split(Path(file), split, {} if explicit else {"seed": seed, **how})
    return split


def _draw(cases: Sequence[Case], held_out: float, seed: int) -> set[str]:
    """So many subjects, or such a share of them, at random."""
    subjects = sorted({case["subject"] for case in cases})
    if held_out < 0 or (held_out > 1 and held_out != int(held_out)):
        raise ConfigError(f"held_out={held_out}: expected a number of cases, or a share of them between 0 and 1.")
    count = max(round(held_out * len(subjects)), 1) if 0 < held_out < 1 else int(held_out)
    if count >= len(subjects):
        raise DataError(
            f"held_out={held_out} of {len(subjects)} subjects leaves none for training. Pass --held_out with fewer "
            f"than {len(subjects)}, or null to use folds."
        )
    return set(random.Random(f"{seed} held out").sample(subjects, count))


def _deal(cases: Sequence[Case], folds: int, fold: int, seed: int) -> dict[str, int]:
    """Fold of each subject."""
    if folds < 2 or not 0 <= fold < folds:
        raise ConfigError(f"folds={folds}, fold={fold}: folds must be at least 2, and fold from 0 to folds - 1.")
    strata: dict[str, str] = {}
    for case in cases:  # a subject with several grades (time points) counts as the first of them, HGG before LGG
        grade = str(case.get("grade", ""))
        strata[case["subject"]] = min(strata.get(case["subject"], grade), grade)
    if len(strata) < folds:
        raise DataError(
            f"{len(strata)} subjects cannot be split into {folds} folds. Pass --folds {max(2, len(strata))} or fewer "
            "(at least 2 subjects are needed), or name the validation cases in a --datalist file."
        )
    dealt: list[str] = []
    for grade in sorted(set(strata.values())):
        subjects = sorted(subject for subject in strata if strata[subject] == grade)
        random.Random(f"{seed} {grade}").shuffle(subjects)
        dealt += subjects
    return {subject: position % folds for position, subject in enumerate(dealt)}


def write_split(
    file: Path, split: dict[str, list[Case]], drawn: dict[str, float], stratified_by: str = "grade"
) -> None:
    """Write a split as :func:`read_split` reads it.

    Args:
        file: the JSON file.
        split: ``training`` and ``validation``.
        drawn: how it was drawn: ``seed``, and ``folds`` and ``fold`` or ``held_out``; empty if a datalist gave it.
        stratified_by: the field of the cases within which folds were dealt.
    """
    strata = {part: Counter(case.get(stratified_by, "unknown") for case in of_part) for part, of_part in split.items()}
    stratified = any(stratified_by in case for of_part in split.values() for case in of_part)
    record = {
        "seed": None,
        "folds": None,
        "fold": None,
        **drawn,
        "stratified_by": stratified_by if stratified and "folds" in drawn else None,
        "counts": {
            stratum: {part: strata[part][stratum] for part in split}
            for stratum in sorted(strata["training"].keys() | strata["validation"].keys())
        },
        **{part: [case["case"] for case in of_part] for part, of_part in split.items()},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}")  # several processes of one run write the same split
    partial.write_text(json.dumps(record, indent=4) + "\n", encoding="utf-8")
    partial.replace(file)


def read_split(file: str | os.PathLike[str]) -> dict[str, Any]:
    """What :func:`split_cases` wrote: ``training`` and ``validation`` are lists of names of cases.

    Raises:
        DataError: no such file, or not one of this form.
    """
    try:
        record = read_json(file, "Write it again by training.")
        if isinstance(record, dict) and all(_are_names(record.get(part)) for part in ("training", "validation")):
            return record
    except FileNotFoundError as error:
        raise DataError(f"no split file {file}. Training writes it to its output folder.") from error
    raise DataError(f"{file} is not a split file: expected lists 'training' and 'validation' of names of cases.")


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def held_out(cases: Sequence[Case], split_file: str | os.PathLike[str] | None, subset: str = "held_out") -> list[Case]:
    """The cases on which a trained model may be judged.

    Args:
        cases: all cases.
        split_file: the split with which the model was trained. If there is none, ``held_out`` gives all cases
            and logs a warning.
        subset: ``held_out``, every case that was not trained on; or ``training``, ``validation``, ``all``; or ``test``,
            the cases of the data set's own section of that name.

    Returns:
        The cases of the subset, in their order.

    Raises:
        ConfigError: unknown subset.
        DataError: the split file is needed and missing or damaged, or no case is left.
    """
    if subset not in ("held_out", "training", "validation", "test", "all"):
        raise ConfigError(f"subset={subset!r}: choose held_out, training, validation, test or all.")
    if subset == "all":
        chosen = list(cases)
    elif subset == "test":
        chosen = [case for case in cases if case.get("section") == "test"]
    elif subset == "held_out" and not (split_file and Path(split_file).is_file()):
        logger.warning("no split file %s: taking all %d cases, which may have been trained on", split_file, len(cases))
        chosen = list(cases)
    else:
        split = read_split(split_file or "")
        names = set(split["training" if subset == "held_out" else subset])
        chosen = [case for case in cases if (case["case"] in names) != (subset == "held_out")]
    if not chosen:
        raise DataError(
            f"no case is left in subset {subset!r} of {len(cases)} cases (split file {split_file}). Check that "
            "--dataset_dir holds the data set of that split, or choose another subset."
        )
    return chosen
