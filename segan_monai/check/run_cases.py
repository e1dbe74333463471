# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Cases and loader of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

from monai.bundle import ConfigComponent, ConfigParser
from monai.utils import ensure_tuple

from segan_monai.check.cases import Case, Parts
from segan_monai.check.configs import dumped
from segan_monai.check.initial_weights import cases_begun_on
from segan_monai.check.report import Report, counted
from segan_monai.check.trial import built
from segan_monai.data.split_file import cases_of_part, read_split
from segan_monai.transforms.case_loader import CaseLoader
from segan_monai.transforms.tissue_labels import RelabelCased


class RunCases(NamedTuple):
    """Data of a run.

    Attributes:
        parts: ``training`` and ``validation``, or ``evaluated``, or ``cases``, to cases.
        seen: in an evaluation of held-out cases, the cases that the weights were trained on.
        begun_on: the cases that the weights with which a training begins were trained on, if these are known.
        loader: the transform that reads a case.
        label_keys: the loader's keys of label maps.
        settings: text that changes with the loader's settings.
        regions: label values of each region; None if the config has none or they cannot be determined.
        relabelled: whether label values are mapped by the cases' ``tissue_values``.
        ignore_label: value of voxels whose label is unknown; None for none.
    """

    parts: Parts
    seen: Sequence[Case]
    begun_on: Sequence[Case]
    loader: CaseLoader
    label_keys: Sequence[str]
    settings: str
    regions: Mapping[str, Sequence[int]] | None
    relabelled: bool
    ignore_label: int | None = None


def find_run_cases(parser: ConfigParser, used: Sequence[str], report: Report) -> RunCases | None:
    """Index and split the cases as the run will, without opening images.

    Args:
        parser: the parsed config; its ``split``, ``chosen_cases`` or ``cases`` are resolved.
        used: ids that the run resolves.
        report: receives a row, and an error if the data set cannot be used.

    Returns:
        The data; None after an error, or if the config has none of these ids or no transform that reads cases.
    """
    source = next((name for name in ("split", "chosen_cases", "cases") if name in used), None)
    loaders = [name for name in used if issubclass(_class_of(parser, name), CaseLoader)]
    if source is None or not loaders:
        report.note("data set", "not checked: this config has no cases (split, chosen_cases or cases) or no loader")
        return None
    ok, found = built(parser, source, "data set", report)
    ready, loader = built(parser, loaders[0], "data set", report)
    if not ok or not ready:
        return None
    parts: Parts = found if isinstance(found, Mapping) else {"cases" if source == "cases" else "evaluated": found}
    report.note(
        "data set", ", ".join(f"{counted(len(cases), 'case')}{_suffix(part, parts)}" for part, cases in parts.items())
    )
    report.measured["cases"] = {part: len(cases) for part, cases in parts.items()}
    label_keys = tuple(loader.keys[1:])
    regions: Any = None
    if label_keys and "label_regions" in parser:
        regions = built(parser, "label_regions", "labels", report)[1]
    elif label_keys and "regions" in parser:
        regions = built(parser, "regions", "labels", report)[1]
    return RunCases(
        parts,
        _seen(parser, report) if source == "chosen_cases" else (),
        cases_begun_on(parser, report) if source == "split" else (),
        loader,
        label_keys,
        dumped(parser.ref_resolver.items[loaders[0]].get_config()),
        regions if isinstance(regions, Mapping) else None,
        any(issubclass(_class_of(parser, name), RelabelCased) for name in used),
        parser.get("ignore_label"),
    )


def _suffix(part: str, parts: Parts) -> str:
    if part in ("cases", "evaluated", "unlabeled"):
        return {"cases": "", "evaluated": " to be evaluated", "unlabeled": " unlabelled, for training"}[part]
    return f"{' labelled,' if 'unlabeled' in parts and part == 'training' else ''} for {part}"


def _class_of(parser: ConfigParser, name: str) -> type:
    """Return the class of a component, or ``object`` for any other item."""
    item = parser.ref_resolver.items[name]
    if isinstance(item, ConfigComponent) and isinstance(item.get_config().get("_target_"), str):
        found = locate(str(item.resolve_module_name()))
        return found if isinstance(found, type) else object
    return object


def _seen(parser: ConfigParser, report: Report) -> Sequence[Case]:
    if parser.get("subset") != "held_out" or "split_file" not in parser:
        return ()
    split_file = built(parser, "split_file", "subjects", report)[1]
    files = ensure_tuple(split_file or ())
    splits = [read_split(file) for file in files if Path(file).is_file()]
    if files and not splits:
        report.warning(
            "subjects",
            "split_file",
            f"{files[0]} does not exist, so it is unknown which cases the weights were trained on, and all are "
            "evaluated. Copy it beside the weights, or judge on cases that they cannot have seen.",
        )
    cases: list[dict[str, Any]] = parser.get_parsed_content("cases") if splits else []
    names = {case["case"] for split in splits for case in cases_of_part(cases, split, "training")}
    return [case for case in cases if case["case"] in names]
