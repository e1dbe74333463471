# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Splits into training and held-out cases: by subject, stratified, seeded and recorded."""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.data.continued_split import continue_split, has_split
from segan_monai.data.partial_labels import hide_regions, with_annotated_slices, without_complete_lists
from segan_monai.data.split_file import Case, write_split
from segan_monai.data.unlabeled import by_label, check_unlabeled, hide_labels, unlabeled_for_training
from segan_monai.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


def split_cases(
    cases: Sequence[Case],
    folds: int = 10,
    fold: int = 0,
    seed: int = 0,
    file: str | os.PathLike[str] | None = None,
    max_cases: int | None = None,
    held_out: float | None = None,
    use_sections: bool = True,
    resume: bool = False,
    new_cases: str = "unused",
    labeled_cases: int | Sequence[str] | None = None,
    labeled_seed: int = 0,
    labeled_by: str = "case",
    require_unlabeled: bool = False,
    annotated_slices: int | None = None,
    missing_regions: Mapping[str, float] | None = None,
    regions: Collection[str] = (),
    dealt: Mapping[str, int] | None = None,
) -> dict[str, list[Case]]:
    """Split cases into training and validation.

    The subjects of each grade are shuffled and distributed over the folds; fold number ``fold`` is the validation set.
    All cases of a subject stay together. The numbers of subjects per fold differ by at most one, in total and within
    each grade. Ten folds are the 9:1 split within each grade of Xue et al. (2018) on BraTS 2015. The result depends
    neither on the order of the cases nor on any global random state.

    - A section ``validation`` of a datalist, or of ISIC 2017, is the validation set; no folds are drawn.
    - Cases of a section ``test`` are in neither part.
    - A field ``fold`` of the cases, as in MONAI's datalists or nnU-Net's ``splits_final.json``, defines the folds.
    - Cases without ``label``, beside labelled ones, are a part of their own, ``unlabeled``. They are never held out.
      Those of held-out subjects, and copies of held-out images, are in no part.

    Args:
        cases: as ``segan_monai.data.find_cases`` returns them.
        folds: number of folds, at least 2; ignored if the data set defines the folds.
        fold: index of the validation fold, from 0.
        seed: of the shuffle.
        file: write the split to this JSON file.
        max_cases: number of cases to use, drawn with the seed, for a quick run on a large data set; and largest number
            of unlabelled ones.
        held_out: number of subjects to draw as validation set instead of using folds; below 1, their fraction (500 of
            2,000, or 0.25, in the report of SegAN on ISIC 2017). 0 puts all cases in both parts, to test whether a
            network can overfit.
        use_sections: whether a section ``validation``, or folds that the data set defines, are the split. If not,
            ``training`` is split as if it were alone.
        resume: use the split of the run in ``file``, see ``segan_monai.data.continued_split.continue_split``;
            without such a file and without a checkpoint beside it, the split is drawn.
        new_cases: ``unused`` or ``training``: how to use cases that were added since.
        labeled_cases: number of training cases that keep their labels, or their names; the others become ``unlabeled``.
            None for all.
        labeled_seed: of the draw of these cases; smaller draws are subsets of larger ones.
        labeled_by: ``case``; or ``subject``, if ``labeled_cases`` counts subjects, such as the patients of slices.
        require_unlabeled: raise an error if there are no unlabelled cases, nor any that are labelled in part.
        annotated_slices: number of axial slices of each training case whose label is known, see
            ``with_annotated_slices``; None for all.
        missing_regions: share of the training cases that lack a region, by its name, see ``hide_regions``.
        regions: names of all regions; needed with ``missing_regions``. A case whose ``labelled_regions`` lists them all
            is labelled, not labelled in part.
        dealt: folds of subjects that have one already, see ``deal_shared``; the others are dealt evenly beside them.

    Returns:
        ``training`` and ``validation``: lists of cases, sorted by name. If there are unlabelled cases, also
        ``unlabeled``: cases without ``label``.

    Raises:
        DataError: no cases for training, or fewer subjects than folds or than ``held_out``; folds of the data set that
            leave out a case or share a subject; cases of a resumed run that are gone or changed; no unlabelled cases,
            if they are required.
        ConfigError: ``folds``, ``fold``, ``held_out``, ``labeled_cases``, ``annotated_slices`` or ``missing_regions``
            out of range, or not those of the resumed run.
    """
    cases = without_complete_lists(cases, regions)
    apart = ("test",) if use_sections else ("test", "validation")
    in_sections = sorted((case for case in cases if case.get("section") not in apart), key=lambda case: case["case"])
    of_sections = [case for case in cases if case.get("section") in apart]
    usable, unlabelled = by_label(in_sections)
    given, how = given_validation(usable, fold if held_out is None and use_sections else None)
    if given is None:
        how = {"seed": seed, **({"folds": folds, "fold": fold} if held_out is None else {"held_out": held_out})}
    if max_cases is not None and max_cases >= max(len(usable), len(unlabelled)):
        max_cases = None  # it has no effect
    how["max_cases"] = max_cases
    hidden_labels = {
        "labeled_cases": labeled_cases,
        "annotated_slices": annotated_slices,
        "missing_regions": dict(missing_regions) if missing_regions else None,
    }
    if any(value is not None for value in hidden_labels.values()):
        how |= {key: value for key, value in hidden_labels.items() if value is not None}
        how |= {"labeled_seed": labeled_seed, **({"labeled_by": labeled_by} if labeled_by != "case" else {})}
    if resume and file and has_split(Path(file)):
        split = continue_split(in_sections, Path(file), how, new_cases, given or (), held_out=of_sections)
        split["training"] = with_annotated_slices(split["training"], annotated_slices, labeled_seed)
        check_unlabeled(split, require_unlabeled)
        return split
    if max_cases is not None and max_cases < len(usable):
        drawn = random.Random(f"{seed} {max_cases}").sample(range(len(usable)), max(max_cases, 0))
        usable = [usable[index] for index in sorted(drawn)]
    if given is not None:
        validation = [case for case in usable if case["case"] in given]
    elif held_out is not None:
        drawn_subjects = _draw(usable, held_out, seed)
        validation = [case for case in usable if case["subject"] in drawn_subjects]
    else:
        fold_of = _deal(usable, folds, fold, seed, dealt or {})
        validation = [case for case in usable if fold_of[case["subject"]] == fold]
    validation_ids = {case["case"] for case in validation}
    split = {"training": [case for case in usable if case["case"] not in validation_ids], "validation": validation}
    if held_out == 0 and given is None:
        split["validation"] = list(usable)
    for part in split if given is not None else ("training",):
        if not split[part]:
            raise DataError(
                f"no cases for {part} among {len(usable)}: the data set's own section or fold for it is empty"
                f"{'' if max_cases is None else ', or --max_cases too low'}."
            )
    own_fold = fold if held_out is None and use_sections else None
    unlabelled = unlabeled_for_training(unlabelled, split, of_sections, own_fold, max_cases, seed)
    split["training"], hidden = hide_labels(split["training"], labeled_cases, labeled_seed, labeled_by)
    split["training"], without = hide_regions(split["training"], missing_regions, regions, labeled_seed, labeled_by)
    split["training"] = with_annotated_slices(split["training"], annotated_slices, labeled_seed)
    if hidden or without or unlabelled:
        split["unlabeled"] = sorted([*hidden, *without, *unlabelled], key=lambda case: case["case"])
    check_unlabeled(split, require_unlabeled)
    if file:
        write_split(Path(file), split, how, others=cases)
    return split


def given_validation(cases: Sequence[Case], fold: int | None) -> tuple[set[str] | None, dict[str, Any]]:
    """Return the validation set that the data set defines: its section of that name, or one of its folds.

    Args:
        cases: cases; those of a section ``validation`` have the field ``section``, those of folds the field ``fold``
            (-1: in the training set of every fold).
        fold: number of the fold; None to use sections only.

    Returns:
        Names of cases, None if the data set defines neither; and the record for ``write_split``: ``fold``, or nothing
        for a section.

    Raises:
        DataError: a subject is in both parts, or only some cases have a fold.
        ConfigError: no such fold.
    """
    of_section = {case["case"] for case in cases if case.get("section") == "validation"}
    if of_section:
        subjects = [{c["subject"] for c in cases if (c["case"] in of_section) == side} for side in (True, False)]
        if shared := subjects[0] & subjects[1]:
            raise DataError(
                f"{len(shared)} subjects are in both sections 'training' and 'validation' of the datalist, such as "
                f"{min(shared)}. Move all cases of a subject to one section."
            )
        return of_section, {}
    if fold is None or not any("fold" in case for case in cases):
        return None, {}
    if without := [case["case"] for case in cases if "fold" not in case]:
        raise DataError(
            f"{len(without)} of {len(cases)} cases are in no fold, such as {without[0]}, while the data set names the "
            'folds of others. Give every case of it a "fold": number, or none of them.'
        )
    fold_of: dict[str, int] = {}
    for case in cases:
        if fold_of.setdefault(case["subject"], case["fold"]) != case["fold"]:
            raise DataError(
                f"subject {case['subject']} is in folds {fold_of[case['subject']]} and {case['fold']} of the data set "
                f"(case {case['case']}). Move all cases of a subject to one fold."
            )
    known = sorted({number for number in fold_of.values() if number >= 0})
    if fold not in known:
        raise ConfigError(f"--fold {fold}: the data set names folds {', '.join(map(str, known))}. Choose one of them.")
    logger.info(
        "the data set names its %d folds, which are used whatever --folds is; fold %d is held out", len(known), fold
    )
    return {case["case"] for case in cases if case["fold"] == fold}, {"fold": fold}


def _draw(cases: Sequence[Case], held_out: float, seed: int) -> set[str]:
    """Draw a number or a fraction of the subjects."""
    subjects = sorted({case["subject"] for case in cases})
    if held_out < 0 or (held_out > 1 and held_out != int(held_out)):
        raise ConfigError(f"held_out={held_out}: expected a number of subjects, or a fraction of them between 0 and 1.")
    count = max(round(held_out * len(subjects)), 1) if 0 < held_out < 1 else int(held_out)
    if count >= len(subjects):
        raise DataError(
            f"held_out={held_out} of {len(subjects)} subjects leaves none for training. Pass --held_out with fewer "
            f"than {len(subjects)}, or null to use folds."
        )
    return set(random.Random(f"{seed} held out").sample(subjects, count))


def _deal(cases: Sequence[Case], folds: int, fold: int, seed: int, known: Mapping[str, int]) -> dict[str, int]:
    """Return the fold of each subject."""
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
    fold_of = {subject: known[subject] for subject in strata if subject in known}
    sizes = Counter(fold_of.values())
    for grade in sorted(set(strata.values())):
        subjects = sorted(subject for subject in strata if strata[subject] == grade)
        random.Random(f"{seed} {grade}").shuffle(subjects)
        for subject in subjects:
            if subject not in known:
                fold_of[subject] = min(range(folds), key=lambda number: sizes[number])
                sizes[fold_of[subject]] += 1
    return fold_of


def deal_shared(cases: Sequence[Case], folds: int, seed: int) -> dict[str, int]:
    """Return the folds of the subjects that occur in several domains, such as people scanned at two sites.

    Each has one fold in all its domains. In each domain, they are spread over the folds.
    """
    domains_of: dict[str, set[str]] = {}
    for case in cases:
        domains_of.setdefault(case["subject"], set()).add(str(case.get("domain", "")))
    shared = sorted(subject for subject, domains in domains_of.items() if len(domains) > 1)
    random.Random(f"{seed} shared").shuffle(shared)
    fold_of: dict[str, int] = {}
    sizes: Counter[tuple[str, int]] = Counter()
    for subject in shared:
        domains = sorted(domains_of[subject])
        of_folds = [sum(sizes[domain, number] for domain in domains) for number in range(folds)]
        fold_of[subject] = of_folds.index(min(of_folds))
        sizes.update((domain, fold_of[subject]) for domain in domains)
    return fold_of
