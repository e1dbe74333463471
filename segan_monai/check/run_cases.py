# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Which cases a config works on, and how it reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

from monai.bundle import ConfigComponent, ConfigParser

from segan_monai.check.cases import Case, Parts, is_loader
from segan_monai.check.configs import dumped
from segan_monai.check.report import Report, counted
from segan_monai.check.trial import built
from segan_monai.data.split_file import cases_of_part, read_split
from segan_monai.transforms.tissue_labels import RelabelCased


class RunCases(NamedTuple):
    """The data of a run.

    Attributes:
        parts: ``training`` and ``validation``, or ``evaluated``, or ``cases``, to cases.
        seen: cases that the weights of an evaluation of kept-out cases were trained on.
        loader: the transform that reads a case.
        label_keys: those of its keys that are label maps.
        settings: text that changes with the loader's settings.
        regions: label values of each region; None if the config has none, or they cannot be found.
        relabelled: whether label maps get the values that ``tissue_values`` of a case name.
    """

    parts: Parts
    seen: Sequence[Case]
    loader: Any
    label_keys: Sequence[str]
    settings: str
    regions: Mapping[str, Sequence[int]] | None
    relabelled: bool


def find_run_cases(parser: ConfigParser, used: Sequence[str], report: Report) -> RunCases | None:
    """Find cases as the run will: the folder or datalist is indexed and split, no image is opened.

    Args:
        parser: the parsed config; its ``split``, ``chosen_cases`` or ``cases`` are resolved.
        used: ids that the run resolves.
        report: gets a row; an error if the data set cannot be used at all.

    Returns:
        The data; None if the config has none of these ids or no transform that reads cases, or with an error.
    """
    source = next((name for name in ("split", "chosen_cases", "cases") if name in used), None)
    loaders = [name for name in used if is_loader(_class_of(parser, name))]
    if source is None or not loaders:
        report.note("data set", "not looked at: this config has no split, chosen_cases or cases and a loader of them")
        return None
    ok, found = built(parser, source, "data set", report)
    ready, loader = built(parser, loaders[0], "data set", report)
    if not ok or not ready:
        return None
    parts: Parts = found if isinstance(found, Mapping) else {"cases" if source == "cases" else "evaluated": found}
    report.note("data set", ", ".join(f"{counted(len(cases), 'case')}{_of(part)}" for part, cases in parts.items()))
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
        loader,
        label_keys,
        dumped(parser.ref_resolver.items[loaders[0]].get_config()),
        regions if isinstance(regions, Mapping) else None,
        any(issubclass(_class_of(parser, name), RelabelCased) for name in used),
    )


def _of(part: str) -> str:
    return "" if part == "cases" else f" {'for ' if part != 'evaluated' else 'to be '}{part}"


def _class_of(parser: ConfigParser, name: str) -> type:
    """The class of a component; `object` of whatever is none."""
    item = parser.ref_resolver.items[name]
    if isinstance(item, ConfigComponent) and isinstance(item.get_config().get("_target_"), str):
        found = locate(str(item.resolve_module_name()))
        return found if isinstance(found, type) else object
    return object


def _seen(parser: ConfigParser, report: Report) -> Sequence[Case]:
    if parser.get("subset") != "held_out" or "split_file" not in parser:
        return ()
    split_file = built(parser, "split_file", "subjects", report)[1]
    if not split_file or not Path(split_file).is_file():
        return ()
    return cases_of_part(parser.get_parsed_content("cases"), read_split(split_file), "training")
