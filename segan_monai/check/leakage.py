# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks for data leakage: duplicated voxels, and subjects in both training and validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from segan_monai.check.cases import Case, Parts
from segan_monai.check.report import Report


def check_duplicates(parts: Parts, contents: Mapping[str, Mapping[str, Any]], report: Report) -> None:
    """Report cases with equal voxels, within a part and across parts.

    Args:
        parts: ``training``, ``validation``, ... to cases.
        contents: see ``check_contents``.
        report: receives one row.
    """
    part_of: dict[str, set[str]] = defaultdict(set)
    for part, cases in parts.items():
        for case in cases:
            part_of[case["case"]].add(part)
    report.note("duplicates", "no two images and no two label maps of the same voxels")
    for kind in ("image", "label"):
        owners: dict[str, list[str]] = defaultdict(list)
        for name, found in contents.items():
            for digest in found.get(f"{kind}_hashes", ()):
                owners[digest].append(name)
        groups = {tuple(names) for names in owners.values() if len(names) > 1}
        for names in sorted(groups):
            owning = sorted(set(names))
            if len(owning) == 1:
                report.warning(
                    "duplicates",
                    owning[0],
                    f"case {owning[0]} has the same voxels in {len(names)} of its images: one modality was saved under "
                    "the name of another. Put the right file there.",
                )
                continue
            sides = {frozenset(part.replace("unlabeled", "training") for part in part_of[name]) for name in owning}
            both = len(sides) > 1
            leak = kind == "image" and both
            remedy = "Keep one of them" + (": the validation set was seen in training." if leak else ".")
            listed = ", ".join(f"{name} ({' and '.join(sorted(part_of[name]))})" for name in owning[:5])
            listed += f" and {len(owning) - 5} more" if len(owning) > 5 else ""
            message = f"{kind}s of cases {listed} hold the same voxels. {remedy}"
            (report.error if leak else report.warning)("duplicates", owning[0], message)


def check_subjects(parts: Parts, seen: Iterable[Case], report: Report, begun_on: Iterable[Case] = ()) -> None:
    """Report subjects that are in both training and validation.

    Args:
        parts: ``training``, ``unlabeled`` and ``validation``, or ``evaluated``.
        seen: training cases of the evaluated weights.
        begun_on: training cases of the weights with which a training begins.
        report: receives one row.
    """
    trained = (*parts.get("training", ()), *parts.get("unlabeled", ()), *seen)
    training = {case["case"]: case["subject"] for case in trained}
    others = {case["case"]: case["subject"] for part in ("validation", "evaluated") for case in parts.get(part, ())}
    counts = ", ".join(f"{len(cases)} {part}" for part, cases in parts.items())
    report.note("subjects", counts)
    if others and others.items() <= training.items():
        report.warning(
            "subjects",
            "split",
            f"all {len(others)} cases that are judged are also trained on (held_out 0 or split_by patch). The "
            "figures say whether the network can overfit, and nothing else.",
        )
        return
    known = {case["subject"] for case in begun_on}
    if judged := sorted(name for name, subject in others.items() if subject in known):
        report.warning(
            "subjects",
            "initial_weights",
            f"{len(judged)} of {len(others)} cases that are judged, such as {judged[0]}, are of subjects that "
            "initial_weights was trained on: their figures are too high. Begin with weights of the same fold, or judge "
            "on other subjects.",
        )
    shared = sorted(set(training.values()) & set(others.values()))
    for subject in shared:
        names = [sorted(name for name, of in side.items() if of == subject) for side in (training, others)]
        report.error(
            "subjects",
            subject,
            f"subject {subject} is trained on ({', '.join(names[0][:3])}) and judged on ({', '.join(names[1][:3])}). "
            "Put all cases of a subject on one side, by the field 'subject' in a --datalist file.",
        )
