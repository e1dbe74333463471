# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""``split.json``: the cases that a network was trained on, by name and content."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from segan_monai.data.case_digest import case_digest
from segan_monai.deferred import write_in_time
from segan_monai.errors import DataError
from segan_monai.json_files import read_json_object, write_json
from segan_monai.processes import process_rank

logger = logging.getLogger(__name__)

Case = dict[str, Any]
AnyCase = TypeVar("AnyCase", bound=Mapping[str, Any])
PARTS = ("training", "validation")
TRAINED_ON = ("training", "unlabeled")


def write_split(
    file: Path,
    split: Mapping[str, Sequence[Case]],
    drawn: Mapping[str, Any],
    stratified_by: str = "grade",
    others: Sequence[Case] = (),
) -> None:
    """Write a split as ``read_split`` reads it, on rank 0.

    Args:
        file: the JSON file; in the output folder of a run, it may be written only when training begins, see
            ``segan_monai.deferred``.
        split: ``training`` and ``validation``, and ``unlabeled`` if there are unlabelled training cases.
        drawn: how it was drawn: ``seed``, and ``folds`` and ``fold`` or ``held_out``; fewer if the data set defines it.
        stratified_by: field of the cases by which folds are stratified.
        others: cases in no part of the split, such as a section ``test``, whose subjects are recorded too.
    """
    strata = {part: Counter(case.get(stratified_by, "unknown") for case in of_part) for part, of_part in split.items()}
    stratified = any(stratified_by in case for of_part in split.values() for case in of_part)
    cases = {case["case"]: case for of_part in split.values() for case in of_part}
    digests = {name: digest for name, case in cases.items() if (digest := case_digest(case))}
    subjects = {
        case["case"]: case["subject"]
        for case in (*cases.values(), *others)
        if case.get("subject", case["case"]) != case["case"]
    }
    record = {
        "seed": None,
        "folds": None,
        "fold": None,
        **drawn,
        "stratified_by": stratified_by if stratified and drawn.get("folds") else None,
        "counts": {
            stratum: {part: strata[part][stratum] for part in split}
            for stratum in sorted(set().union(*strata.values()))
        },
        **{part: [case["case"] for case in of_part] for part, of_part in split.items()},
        "digests": digests,
        **({"subjects": subjects} if subjects else {}),
        **({"labelled_regions": _labelled_regions(split["training"])} if drawn.get("missing_regions") else {}),
    }
    if process_rank() == 0:  # several processes of one run draw the same split
        write_in_time(file.parent, lambda: _write(file, record))


def _labelled_regions(cases: Sequence[Case]) -> dict[str, list[str]]:
    return {case["case"]: case["labelled_regions"] for case in cases if "labelled_regions" in case}


def _write(file: Path, record: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, record)


def read_split(file: str | os.PathLike[str], remedy: str = "Write it again by training.") -> dict[str, Any]:
    """Read a split that ``segan_monai.data.split_cases`` wrote.

    Args:
        file: the file.
        remedy: sentence that ends the error message if the file is damaged.

    Returns:
        ``training``, ``validation`` and ``unlabeled``: lists of names of cases, the last often empty; ``digests``: name
        of a case to its ``case_digest``, and ``subjects``: name of a case to its subject, if their names differ; both
        empty in files of earlier versions; ``labelled_regions``: name of a training case to its regions, if
        ``missing_regions`` hides others; and how the split was drawn.

    Raises:
        DataError: no such file, or not one of this form.
    """
    try:
        record = read_json_object(file, remedy)
    except FileNotFoundError as error:
        raise DataError(f"no split file {file}. Training writes it to its output folder.") from error
    record.setdefault("unlabeled", [])
    for part in (*PARTS, "unlabeled"):
        if not _are_names(record.get(part)):
            raise _not_a_split(file, record, part, "a list of names of cases", remedy)
    for key in ("digests", "subjects"):
        of_cases = record.setdefault(key, {})
        if not isinstance(of_cases, dict) or not _are_names(list(of_cases.values())):
            raise _not_a_split(file, record, key, "names of cases, each with a text", remedy)
    of_cases = record.setdefault("labelled_regions", {})
    if not isinstance(of_cases, dict) or not all(map(_are_names, of_cases.values())):
        raise _not_a_split(file, record, "labelled_regions", "names of cases, each with a list of regions", remedy)
    if not _are_counts(record.get("counts", {})):
        raise _not_a_split(file, record, "counts", "a number of cases for each part of a group", remedy)
    return record


def _not_a_split(
    file: str | os.PathLike[str], record: Mapping[str, Any], key: str, expected: str, remedy: str
) -> DataError:
    found = f"'{key}' is {str(record[key])[:100]}" if key in record else f"it has no '{key}'"
    return DataError(f"{file} is not a split file: {found}; expected {expected}. {remedy}")


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def counts_of_parts(record: Mapping[str, Any], domains: Collection[str] | None = None) -> dict[str, int]:
    """Return the number of cases of ``training``, ``validation`` and ``unlabeled`` in a split.

    Args:
        record: what ``read_split`` returns.
        domains: the domains that a run trains on, its ``train_domains``; the file lists the cases of all. None for all.
    """
    parts, counts = (*PARTS, "unlabeled"), record.get("counts", {})
    if domains is None or not counts.keys() >= set(domains):  # cases of a single domain need not name it
        return {part: len(record[part]) for part in parts}
    return {part: sum(counts[domain].get(part, 0) for domain in domains) for part in parts}


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(of_group, dict) and all(isinstance(count, int) for count in of_group.values())
        for of_group in value.values()
    )


def cases_of_part(cases: Sequence[Case], record: Mapping[str, Any], part: str) -> list[Case]:
    """Return the cases that belong to a part of a split, including renamed ones.

    A case belongs to the part if its name or its content does. A case with a known name but other content also belongs
    to it, with a warning: it is more often the same patient with a corrected header than another patient.

    Args:
        cases: the current cases.
        record: what ``read_split`` returns.
        part: ``training``, ``validation`` or ``unlabeled``.

    Returns:
        The cases of the part, in order.
    """
    names, digests = set(record[part]), record["digests"]
    name_of = {digests[name]: name for name in record[part] if name in digests}
    found = []
    for case in cases:
        digest = case_digest(case) if digests else None
        name = case["case"]
        if name in names:
            if digest and digests.get(name, digest) != digest:
                logger.warning(
                    "case %s has the name of a %s case but another content, and counts as that case. If it is of "
                    "another patient, rename it.",
                    name,
                    part,
                )
        elif digest in name_of:
            logger.info("case %s is %s case %s under another name", name, part, name_of[digest])
        else:
            continue
        found.append(case)
    return found


def trained_cases(cases: Sequence[Case], record: Mapping[str, Any]) -> set[str]:
    """Return the names of the cases that a split trains on, with or without their label, see ``cases_of_part``."""
    return {case["case"] for part in TRAINED_ON for case in cases_of_part(cases, record, part)}


def cases_of_trained_content(cases: Sequence[AnyCase], *records: Mapping[str, Any]) -> list[AnyCase]:
    """Return the cases whose files any of the splits trained on, under any name; by name if a split has no digests.

    Unlike ``trained_cases``, it takes a case of the same name but another content as another case. It is for splits of
    another data set. Each case is digested once, and none if no split has digests.
    """
    names: set[str] = set()
    digests: set[str] = set()
    for record in records:
        trained = {name for part in TRAINED_ON for name in record[part]}
        known = {record["digests"][name] for name in trained if name in record["digests"]}
        digests |= known
        names |= set() if known else trained
    return [case for case in cases if case["case"] in names or (digests and case_digest(case) in digests)]


def trained_patients(record: Mapping[str, Any]) -> set[str]:
    """Return the patients that a split trains on; a case without one is a patient of its own."""
    return {record["subjects"].get(name, name) for part in TRAINED_ON for name in record[part]}


def patient_of(case: Mapping[str, Any]) -> str:
    """Return the patient of a case; its own name if none is known."""
    return str(case.get("subject", case["case"]))


def of_trained_patients(cases: Sequence[Case], record: Mapping[str, Any], trained: Collection[str]) -> set[str]:
    """Return the names of cases in no part of a split that are of a patient whose other cases were trained on.

    A split keeps the cases of a patient together. Those that it does not have, because of ``max_cases`` or because they
    were added later, may still be of such a patient. A warning says so.

    Args:
        cases: the current cases.
        record: what ``read_split`` returns.
        trained: what ``trained_cases`` returns.
    """
    patients = trained_patients(record) | {patient_of(case) for case in cases if case["case"] in trained}
    known = {*trained, *record["validation"]}
    found = [case for case in cases if case["case"] not in known and patient_of(case) in patients]
    if found:
        logger.warning(
            "%d cases are not held out, although none of them was trained on: other cases of their patients were, such "
            "as those of %s (case %s)",
            len(found),
            patient_of(found[0]),
            found[0]["case"],
        )
    return {case["case"] for case in found}
