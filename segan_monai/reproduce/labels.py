# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Label maps of the cases of a run, loaded as its evaluation loads them, and the domains of its training."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from monai.bundle import ConfigParser
from monai.transforms import Compose

from segan_monai.transforms import RelabelCased, label_to_regions

_DEFAULTS = {"ignore_label": None, "spacing_known": True}


def load_cases(files: Sequence[str], names: Collection[str], key: str) -> Iterator[tuple[dict[str, Any], dict]]:
    """Load image and label map of cases.

    Args:
        files: config files of an evaluation, see ``config_files_of``.
        names: names of the cases.
        key: key of the config with cases: ``cases``, those of the data set, or ``chosen_cases``.

    Yields:
        ``case``, ``label`` (1, H, W[, D]) and what else a case has; and the settings ``ignore_label`` and
        ``spacing_known`` of the evaluation.
    """
    yield from _load(_parser(files), names, key)


def regions_in_all(files: Sequence[str], names: Collection[str]) -> set[str]:
    """Return the regions that occur in every one of some cases that is labelled for them, see ``load_cases``."""
    parser = _parser(files)
    regions = parser.get_parsed_content("label_regions")
    found: dict[str, list[bool]] = {name: [] for name in regions}
    for case, settings in _load(parser, names, "cases"):
        masks = label_to_regions(case["label"], regions, settings["ignore_label"])
        labelled = case.get("labelled_regions")
        for name, mask in zip(regions, masks, strict=True):
            if labelled is None or name in labelled:
                found[name].append(bool(mask.any()))
    return {name for name, occurs in found.items() if occurs and all(occurs)}


def train_domains(files: Sequence[str]) -> list[str] | None:
    """Return the domains that a training uses, by its config files; None for all, or for a bundle without domains."""
    parser = _parser(files)
    domains: list[str] | None = parser.get_parsed_content("train_domains") if "train_domains" in parser else None
    return domains


def _load(parser: ConfigParser, names: Collection[str], key: str) -> Iterator[tuple[dict[str, Any], dict]]:
    settings = {name: parser.get_parsed_content(name) if name in parser else value for name, value in _DEFAULTS.items()}
    first, *others = parser.get_parsed_content("preprocessing").transforms
    load = Compose([first, *(step for step in others if isinstance(step, RelabelCased))])
    for case in parser.get_parsed_content(key):
        if case["case"] in names:
            yield load(case), settings


def _parser(files: Sequence[str]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(files)
    return parser
