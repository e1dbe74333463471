# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The split of a resumed training: always that of the run."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.data.case_digest import case_digest
from segan_monai.data.split_file import PARTS, Case, read_split, write_split
from segan_monai.data.unlabeled import by_label, not_held_out, without_label
from segan_monai.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_NOT_DRAWN = {"seed": None, "folds": None, "fold": None, "held_out": None}
_OF_LABELS = dict.fromkeys(
    ["labeled_cases", "annotated_slices", "missing_regions", "labeled_seed", "labeled_by", "unlabeled_domains"]
)
_OF_CASES = {*PARTS, "unlabeled", "digests", "subjects", "labelled_regions", "counts", "stratified_by"}


def has_split(file: Path) -> bool:
    """Return whether a run to resume has its split; without a checkpoint it need not have one.

    Raises:
        ConfigError: there is a checkpoint and no split, so that training cases could become held out.
    """
    if file.is_file():
        return True
    if (file.parent / "last.pt").is_file():
        raise ConfigError(
            f"{file} is missing, so the training and validation cases of {file.parent / 'last.pt'} are unknown. Copy "
            "split.json back from the weights' folder (ckpt_dir), or start anew in another --output_dir."
        )
    return False


def continue_split(
    cases: Sequence[Case],
    file: Path,
    drawn: Mapping[str, Any],
    new_cases: str = "unused",
    apart: Collection[str] = (),
    stratified_by: str = "grade",
    held_out: Sequence[Case] = (),
) -> dict[str, list[Case]]:
    """Return the split that a run started with, so that no training case becomes held out.

    Cases added to the data set since are named in the log. They are never used for validation, so the best metric
    always refers to the same cases. With ``max_cases``, ``labeled_cases`` or ``missing_regions``, no case is new. An
    unlabelled case that has a label map now is a new one, except in ``unlabeled_domains``, whose labels stay hidden.

    Args:
        cases: the current cases, without those of a section ``test``.
        file: the split of the run; rewritten if cases are added.
        drawn: settings with which a split would be drawn now, see ``write_split``.
        new_cases: ``unused``, or ``training`` to add them to the training set. Those that belong to the validation set
            stay unused: cases of its subjects, copies of its images, and cases in ``apart``; so do those of
            ``held_out``.
        apart: names of the cases that the data set assigns to the validation set.
        stratified_by: see ``write_split``.
        held_out: cases of sections that are never trained on, such as ``test``.

    Returns:
        ``training`` and ``validation``, and ``unlabeled`` if there are any: lists of cases, in the order of the run.

    Raises:
        ConfigError: ``drawn`` is another split than that of the run; unknown ``new_cases``.
        DataError: a case of the run is missing, renamed or has another image.
    """
    if new_cases not in ("unused", "training"):
        raise ConfigError(f"new_cases={new_cases!r}: choose unused or training.")
    record = read_split(file)
    _refuse_another_draw(record, drawn)
    of_run = [name for part in PARTS for name in record[part]]
    cases = _with_hidden_labels(cases, of_run, drawn.get("unlabeled_domains") or ())
    labelled, unlabelled = by_label(cases)
    case_of = {case["case"]: case for case in (*unlabelled, *labelled)}
    for case in unlabelled:
        if case["case"] in of_run:  # its label map is missing
            del case_of[case["case"]]
    known = {*of_run, *record["unlabeled"]}
    new = [case for case in cases if case["case"] not in known]
    _refuse_other_cases(record, known, case_of, new)
    split = {part: [case_of[name] for name in record[part]] for part in PARTS}
    if record["unlabeled"]:
        split["unlabeled"] = [without_label(case_of[name]) for name in record["unlabeled"]]
    if drawn.get("missing_regions"):
        known_of = record["labelled_regions"]
        split["training"] = [
            {**case, "labelled_regions": known_of[case["case"]]} if case["case"] in known_of else case
            for case in split["training"]
        ]
    if any(drawn.get(key) is not None for key in ("max_cases", "labeled_cases", "missing_regions")):
        return split
    names = {case["case"] for case in labelled}
    new += [case_of[name] for name in record["unlabeled"] if name in names]
    if not new:
        return split
    added = [] if new_cases == "unused" else not_held_out(new, split, apart, held_out)
    if unused := [case["case"] for case in new if case not in added]:
        logger.warning(
            "%d cases were added since the run started and stay unused: %s. %s",
            len(unused),
            ", ".join(unused),
            "They belong to the validation set, which stays as it was, or to the test set."
            if new_cases == "training"
            else "--new_cases training adds them to the training set.",
        )
    if added:
        logger.info(
            "%d new cases are added to the training set: %s", len(added), ", ".join(case["case"] for case in added)
        )
        _add(added, split, names)
        how = {key: value for key, value in record.items() if key not in _OF_CASES}
        write_split(file, split, how, stratified_by, [*cases, *held_out])
    return split


def _with_hidden_labels(cases: Sequence[Case], labelled: Collection[str], domains: Collection[str]) -> list[Case]:
    """Return the cases, without the labels of some domains; ``labelled`` names the cases that keep theirs."""
    return [
        without_label(case) if case.get("domain") in domains and case["case"] not in labelled else case
        for case in cases
    ]


def _add(added: Sequence[Case], split: dict[str, list[Case]], labelled: Collection[str]) -> None:
    """Add cases to the training set or to the unlabelled cases; those labelled since move to the training set."""
    split["training"] += [case for case in added if case["case"] in labelled]
    moved = {case["case"] for case in split["training"]}
    still = [case for case in split.pop("unlabeled", []) if case["case"] not in moved]
    if unlabelled := [*still, *(case for case in added if case["case"] not in labelled)]:
        split["unlabeled"] = unlabelled


def _refuse_another_draw(record: Mapping[str, Any], drawn: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` if the settings differ; those that files of earlier versions lack are not compared."""
    was, now = {"held_out": None, **_OF_LABELS, **record}, {**_NOT_DRAWN, **_OF_LABELS, **drawn}
    differing = [key for key in now if key in was and was[key] != now[key]]
    if not differing:
        return
    remedies = [f"omit --{key}" if was[key] is None else f"pass --{key} {was[key]}" for key in differing]
    if all(was.get(key) is None for key in _NOT_DRAWN):
        remedies = ["give the data set its sections again"]
    raise ConfigError(
        f"the run to resume was split with {_listed(was, now)}, but the command asks for {_listed(now, now)}. Training "
        f"cases could become held out. To resume it, {' and '.join(remedies)}; for another split, train in another "
        "--output_dir."
    )


def _listed(settings: Mapping[str, Any], keys: Mapping[str, Any]) -> str:
    listed = [f"{key} {settings[key]}" for key in keys if settings.get(key) is not None]
    return ", ".join(listed) or "the data set's own sections"


def _refuse_other_cases(
    record: Mapping[str, Any], known: Collection[str], case_of: Mapping[str, Case], new: Sequence[Case]
) -> None:
    digests = record["digests"]
    otherwise = "or train in another --output_dir."
    if gone := sorted(name for name in known if name not in case_of):
        now_called = {digest: case["case"] for case in new if (digest := case_digest(case))}
        for name in gone:
            if renamed := now_called.get(digests.get(name, "")):
                raise DataError(
                    f"case {name} of the run's split.json is now called {renamed}. Rename it to {name}, {otherwise}"
                )
        if set(gone) <= set(record["unlabeled"]):
            raise DataError(
                f"{len(gone)} unlabelled cases of the run's split.json are not in the data set now, such as {gone[0]}. "
                f"Pass --unlabeled use as that run did, check --dataset_dir, restore them, {otherwise}"
            )
        raise DataError(
            f"{len(gone)} cases of the run's split.json are not in the data set, or have no label map now, such as "
            f"{gone[0]}. Check --dataset_dir, restore them, {otherwise}"
        )
    for name in sorted(digests.keys() & known):
        if (digest := case_digest(case_of[name])) and digest != digests[name]:
            raise DataError(
                f"case {name} does not hold the image with which the run started (its digest is {digest}; split.json "
                f"has {digests[name]}): {case_of[name]['image']}. Restore the former image, {otherwise}"
            )
