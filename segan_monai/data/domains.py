# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Domains: data sets with a scanner and a protocol of their own. Which there are, and a split within each."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.data.continued_split import continue_split, has_split
from segan_monai.data.partial_labels import without_complete_lists
from segan_monai.data.split import deal_shared, given_validation, split_cases
from segan_monai.data.split_file import write_split
from segan_monai.data.unlabeled import by_label, check_unlabeled, unlabeled_for_training, without_label
from segan_monai.errors import ConfigError, DataError
from segan_monai.processes import gather_objects

logger = logging.getLogger(__name__)

ONLY_DOMAIN = "all"


def find_domains(cases: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the K domains, sorted: what the cases have in their field ``domain``.

    Of several processes, each may give its share of the cases and all find the same domains.

    Args:
        cases: as ``segan_monai.data.find_cases`` returns them.

    Returns:
        The names; ``["all"]`` where no case has a domain, so K = 1.

    Raises:
        DataError: some cases have a domain and others have none, or one that is not a name.
    """
    return sorted(set().union(*gather_objects(_domains_of(cases))))


def _domains_of(cases: Sequence[dict[str, Any]]) -> set[str]:
    named = [case for case in cases if case.get("domain") is not None]
    if not named:
        return {ONLY_DOMAIN}
    if without := [case["case"] for case in cases if case.get("domain") is None]:
        raise DataError(
            f"{len(without)} of {len(cases)} cases have no domain, such as {without[0]}, while others belong to "
            f"{', '.join(sorted({str(case['domain']) for case in named}))}. Give every entry of the datalist a "
            '"domain": "name", or none of them.'
        )
    if wrong := [case for case in named if not isinstance(case["domain"], str) or not case["domain"]]:
        raise DataError(f"case {wrong[0]['case']}: domain {wrong[0]['domain']!r} is not a name; expected text.")
    return {case["domain"] for case in named}


def in_domains(cases: Sequence[dict[str, Any]], domains: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return the cases of the given domains.

    Args:
        cases: cases of all domains.
        domains: names of the wanted ones; None for all.

    Raises:
        ConfigError: a name that no case has.
    """
    found = find_domains(cases)
    if domains is None:
        return list(cases)
    if unknown := [name for name in domains if name not in found]:
        raise ConfigError(f"no case is of domain {', '.join(unknown)}; the cases' domains are {', '.join(found)}.")
    return [case for case in cases if case.get("domain", ONLY_DOMAIN) in domains]


def split_domains(
    cases: Sequence[dict[str, Any]],
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
    file: str | os.PathLike[str] | None = None,
    max_cases: int | None = None,
    train_domains: Sequence[str] | None = None,
    by: str = "subject",
    resume: bool = False,
    new_cases: str = "unused",
    patch_stride: Sequence[int] | None = None,
    unlabeled_domains: Sequence[str] | None = None,
    require_unlabeled: bool = False,
    regions: Collection[str] = (),
) -> dict[str, list[dict[str, Any]]]:
    """Split the cases of each domain into training and validation, so that neither lacks a domain.

    Within a domain it is ``segan_monai.data.split_cases``: subjects are dealt to folds. A subject of several domains
    has one fold in all of them. The paper (Delisle et al.
    2019, section 3.3) draws patches instead, so parts of one subject, even overlapping ones, are on both sides, and its
    test figures are of subjects that training has seen. ``by="patch"`` does so: all cases are on both sides, and
    ``TissueCentresd`` shares out their patches.

    Args:
        cases: cases of all domains.
        folds: number of folds, at least 2.
        fold: which of them is the validation set, from 0.
        seed: of the shuffle.
        file: write the split of all domains to this JSON file.
        max_cases: at most this many cases of each domain, drawn with the seed, and of the unlabelled ones.
        train_domains: only the cases of these domains are returned; the file lists all, so that runs that train on
            different domains are evaluated on the same cases. None for all.
        by: ``subject`` or ``patch``.
        resume: take the split of the run, in ``file``, as ``split_cases`` does.
        new_cases: ``unused`` or ``training``: what to do with cases that were added since.
        patch_stride: stride of ``TissueCentresd``. A split by patch records it with the seed, so that an evaluation
            finds the test patches.
        unlabeled_domains: domains whose training cases are used without their labels; their validation cases keep them.
        require_unlabeled: raise an error if there are no unlabelled cases.
        regions: names of all regions, see ``split_cases``.

    Returns:
        ``training`` and ``validation``: lists of cases. ``unlabeled``, if there are any: training cases without
        ``label``, of ``unlabeled_domains``, or without a label map among ``cases``; a domain may have no others.

    Raises:
        DataError: a domain has fewer subjects than folds, or the data set's sections or folds leave a part of it
            empty; what ``split_cases`` raises.
        ConfigError: ``by``, ``folds`` or ``fold`` out of range, or an unknown domain; no labelled domain is left; what
            ``split_cases`` raises.
    """
    if by not in ("subject", "patch"):
        raise ConfigError(f"split_by is {by!r}; expected 'subject' or 'patch'.")
    cases = without_complete_lists(cases, regions)
    in_sections = sorted((case for case in cases if case.get("section") != "test"), key=lambda case: case["case"])
    of_test = [case for case in cases if case.get("section") == "test"]
    in_domains(in_sections, train_domains)  # refuses unknown names
    usable, unlabelled = by_label(in_sections)
    hidden = _domains_to_hide(unlabeled_domains, usable, train_domains)
    given, drawn = given_validation(usable, fold) if by == "subject" else (None, {})
    if by == "patch":
        logger.warning(
            "split by patch: training and validation patches come from the same subjects and overlap, so validation "
            "figures are too good. Report none of them; --split_by subject keeps subjects apart."
        )
    elif given is None:
        drawn = {"seed": seed, "folds": folds, "fold": fold}
    of_domains = Counter(case.get("domain", ONLY_DOMAIN) for case in usable)
    if max_cases is not None and max_cases >= max(*of_domains.values(), len(unlabelled), 0):
        max_cases = None  # it has no effect
    drawn |= {"max_cases": max_cases, "split_by": by}
    if by == "patch" and patch_stride is not None:
        drawn |= {"patch_seed": seed, "patch_stride": list(patch_stride)}
    if hidden:
        drawn |= {"unlabeled_domains": hidden}
    if resume and file and has_split(Path(file)):
        split = continue_split(in_sections, Path(file), drawn, new_cases, given or (), "domain", of_test)
        return _finished(split, train_domains, require_unlabeled)
    split = {"training": [], "validation": []}
    dealt = deal_shared(usable, folds, seed) if by == "subject" and given is None and folds >= 2 else {}
    for name in find_domains(usable):
        of_domain = in_domains(usable, [name])
        subjects = len({case["subject"] for case in of_domain})
        if by == "patch":
            of_part = dict.fromkeys(split, of_domain[:max_cases])
        elif given is None and folds >= 2 and subjects < folds:
            raise DataError(
                f"domain {name}: {subjects} subjects cannot be split into {folds} folds. Pass --folds "
                f"{max(2, subjects)} or fewer (at least 2 subjects of each domain are needed), or name the validation "
                "cases in a --datalist file."
            )
        elif given is not None and not 0 < (held_out := sum(c["case"] in given for c in of_domain)) < len(of_domain):
            raise DataError(
                f"domain {name} has {len(of_domain) - held_out} cases in the data set's own 'training' and {held_out} "
                "in 'validation' (section or fold); expected some in both. Move a subject of it there."
            )
        else:
            of_part = split_cases(of_domain, folds, fold, seed, max_cases=max_cases, dealt=dealt)
            _refuse_without_validation(of_part, name)
        for part, chosen in of_part.items():
            split[part] += chosen
    without = unlabeled_for_training(unlabelled, split, of_test, fold, max_cases, seed)
    _hide_labels(split, hidden, without)
    if file:
        write_split(Path(file), split, drawn, stratified_by="domain")
    return _finished(split, train_domains, require_unlabeled)


def _refuse_without_validation(of_part: Mapping[str, Sequence[dict[str, Any]]], domain: str) -> None:
    """Raise ``DataError`` if the subjects that a domain shares with others leave it without a validation case."""
    if not of_part["validation"]:
        raise DataError(
            f"domain {domain}: none of its {len(of_part['training'])} cases is in the validation set, because it "
            "shares subjects with other domains. Pass another --seed, fewer --folds or more --max_cases."
        )


def _hide_labels(
    split: dict[str, list[dict[str, Any]]], hidden: Sequence[str], without: Sequence[dict[str, Any]]
) -> None:
    """Move the training cases of domains to the unlabelled ones, to which further cases without a label are added."""
    of_hidden = [without_label(case) for case in split["training"] if case.get("domain") in hidden]
    split["training"] = [case for case in split["training"] if case.get("domain") not in hidden]
    unlabelled = sorted([*without, *of_hidden], key=lambda case: case["case"])
    if with_skull := [case["case"] for case in unlabelled if case.get("skull_strip")]:
        logger.warning(
            "%d unlabelled cases, such as %s, should be skull-stripped by label maps that are hidden or missing, so "
            "their images keep the skull. Strip it from the files first.",
            len(with_skull),
            with_skull[0],
        )
    if unlabelled:
        split["unlabeled"] = unlabelled


def _domains_to_hide(
    names: Sequence[str] | None, labelled: Sequence[dict[str, Any]], train_domains: Sequence[str] | None
) -> list[str]:
    """Return the domains whose labels are hidden; check that they exist and that another one is left."""
    if not names:
        return []
    known = find_domains(labelled)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"unlabeled_domains names {', '.join(unknown)}; the domains of labelled cases are {', '.join(known)}. A "
            "domain without any label needs no name there: pass --unlabeled use."
        )
    if not {name for name in known if train_domains is None or name in train_domains} - set(names):
        raise ConfigError(
            f"unlabeled_domains {', '.join(names)} leaves no labelled domain of {', '.join(known)}. Name fewer."
        )
    return sorted(names)


def _finished(
    split: Mapping[str, Sequence[dict[str, Any]]], names: Sequence[str] | None, require_unlabeled: bool
) -> dict[str, list[dict[str, Any]]]:
    """Return the cases of some domains of each part, which need not have all of them; check the unlabelled ones."""
    found = {
        part: [case for case in cases if names is None or case.get("domain", ONLY_DOMAIN) in names]
        for part, cases in split.items()
    }
    check_unlabeled(found, require_unlabeled)
    return found
