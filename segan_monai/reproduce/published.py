# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Published tables as data.

``configs/experiments/<table>/table.json`` names a bundle and, for each row, its overlays and its published figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segan_monai.bundles_by_name import BUNDLES, CONFIGS
from segan_monai.errors import ConfigError
from segan_monai.nearest import near
from segan_monai.settings import parse_settings

EXPERIMENTS = CONFIGS / "experiments"
_PACKAGED = {"configs": CONFIGS, "bundles": BUNDLES}

NUMBER_KEY, DRAW_KEY = "labeled_cases", "labeled_seed"
"""Keys of ``train.json``: the number of labelled training cases, and the seed that chooses them."""


@dataclass(frozen=True)
class Labels:
    """Numbers of labelled cases for which the rows of a table run, each with several draws.

    Attributes:
        numbers: numbers of labelled training cases.
        draws: seeds that choose these cases; the same for all rows.
        all_labels: the row that uses every label, and therefore runs once per seed and fold; None for no such row.
        chosen: the row whose cases, beyond the smallest number, are chosen by the quality that the network of the next
            smaller number expects of them; None for no such row.
    """

    numbers: Sequence[int]
    draws: Sequence[int]
    all_labels: str | None = None
    chosen: str | None = None

    def of_row(self, row: str) -> list[tuple[int, int] | None]:
        """Return the numbers and draws with which a row runs; a single None for the row with every label."""
        if row == self.all_labels:
            return [None]
        return [(number, draw) for number in self.numbers for draw in self.draws]


@dataclass(frozen=True)
class ResultTable:
    """Published table whose rows can be run.

    Attributes:
        name: folder of the table below ``configs/experiments``.
        title: subject of the comparison.
        source: paper and table.
        data: data set of the published figures.
        bundle: folder name of the bundle to run.
        metrics: metrics of ``summary.json`` to show; ``box_iou`` is of the training, and of no region.
        rows: overlay files by name of the row.
        published: published value by row, metric and region.
        baseline: row with which all others are compared, patient by patient; None for no such comparison.
        labels: numbers of labelled cases; None for a table whose rows use all labels.
        oracle: row with labels that the others lack, the upper end of the gap between it and the baseline; None for no
            such row.
    """

    name: str
    title: str
    source: str
    data: str
    bundle: str
    metrics: list[str]
    rows: dict[str, list[Path]]
    published: dict[str, dict[str, dict[str, float]]]
    baseline: str | None = None
    labels: Labels | None = None
    oracle: str | None = None


def load_tables(name: str, bundle: str | None = None) -> list[ResultTable]:
    """Read a table, or all tables of a paper.

    A table may name fewer rows for some bundles (``rows_of_bundles``): L-SNet has no critics.

    Args:
        name: name of a folder below ``configs/experiments``, or the common beginning of several names, such as
            ``lsnet``; hyphens and underscores are equivalent.
        bundle: bundle to run instead of that of the table.

    Returns:
        The tables, in the order of their numbers in the paper.

    Raises:
        ConfigError: the table, the bundle or an overlay does not exist.
    """
    known = [file.parent.name for file in sorted(EXPERIMENTS.glob("*/table.json"))]
    wanted = name.replace("-", "_")
    found = [wanted] if wanted in known else [table for table in known if table.startswith(f"{wanted}_")]
    if not found:
        raise ConfigError(
            f"no table '{name}'. Known tables: {', '.join(known).replace('_', '-') or 'none'}; the first part of "
            "several names runs them all."
        )
    return sorted((_load_table(EXPERIMENTS / table, bundle) for table in found), key=lambda table: table.source)


def _load_table(folder: Path, bundle: str | None) -> ResultTable:
    content = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    bundle = bundle or content["bundle"]
    names = content.get("rows_of_bundles", {}).get(bundle, list(content["rows"]))
    rows = {row: content["rows"][row] for row in names}
    overlays = {row: [(folder / file).resolve() for file in rest["overlays"]] for row, rest in rows.items()}
    needed = [BUNDLES / bundle / "configs" / file for file in ("train.json", "evaluate.json")]
    for file in (*needed, *(file for files in overlays.values() for file in files)):
        if not file.is_file():
            raise ConfigError(f"{file} does not exist, but the table '{folder.name}' needs it.")
    if "labels" in content and NUMBER_KEY not in json.loads(needed[0].read_text(encoding="utf-8")):
        raise ConfigError(
            f"bundle {bundle} cannot run the table '{folder.name}': its train.json has no key {NUMBER_KEY}, which sets "
            "the number of labelled cases. Choose another bundle."
        )
    for name in ("baseline", "oracle"):
        if content.get(name, next(iter(overlays))) not in overlays:
            raise ConfigError(
                f"{folder / 'table.json'}: {name} is {content[name]!r}; expected one of the rows: "
                f"{', '.join(overlays)}."
            )
    if (chosen := content.get("labels", {}).get("chosen")) is not None and chosen not in overlays:
        raise ConfigError(
            f"{folder / 'table.json'}: labels#chosen is {chosen!r}; expected one of the rows: {', '.join(overlays)}."
        )
    return ResultTable(
        name=folder.name,
        title=content["title"],
        source=content["source"],
        data=content["data"],
        bundle=bundle,
        metrics=content.get("metrics", ["dice"]),
        rows=overlays,
        published={row: rest.get("published", {}) for row, rest in rows.items()},
        baseline=content.get("baseline"),
        labels=Labels(**content["labels"]) if "labels" in content else None,
        oracle=content.get("oracle"),
    )


def with_labels(
    table: ResultTable, numbers: Sequence[int] | None = None, draws: Sequence[int] | None = None
) -> ResultTable:
    """Return the table with other numbers of labelled cases, or other draws of these.

    Raises:
        ConfigError: if the rows of the table do not run with numbers of labelled cases, or a number is 0.
    """
    if numbers is None and draws is None:
        return table
    if table.labels is None:
        raise ConfigError(
            f"--labels and --draws are for tables with numbers of labelled cases, such as semi-supervised; "
            f"'{table.name}' has none. Omit them."
        )
    if numbers is not None and min(numbers) < 1:
        raise ConfigError(f"labels: {min(numbers)} labelled cases; expected at least 1.")
    labels = replace(table.labels, numbers=numbers or table.labels.numbers, draws=draws or table.labels.draws)
    return replace(table, labels=labels)


def parse_overrides(texts: Iterable[str], table: ResultTable) -> dict[str, Any]:
    """Read ``KEY=VALUE`` settings, see ``parse_settings``.

    Raises:
        ConfigError: a text without ``=``, or a key that the bundle's ``train.json`` does not have.
    """
    known = json.loads((BUNDLES / table.bundle / "configs" / "train.json").read_text(encoding="utf-8"))
    overrides = parse_settings(texts)
    for key in overrides:
        if key.split("#")[0] not in known:
            raise ConfigError(
                f"unknown key '{key}': train.json of {table.bundle} has no such key. {near(key, known)}".rstrip()
            )
    return overrides


def recorded_name(file: Path) -> str:
    """Return a name of an overlay that does not depend on where the package is installed."""
    for name, folder in _PACKAGED.items():
        if file.resolve().is_relative_to(folder):
            return f"{name}/{file.resolve().relative_to(folder).as_posix()}"
    return str(file)


def is_packaged(file: Path) -> bool:
    """Return whether a config is part of this package, so that its content changes with the version alone."""
    return any(file.resolve().is_relative_to(folder) for folder in _PACKAGED.values())


def check_rows(tables: Sequence[ResultTable], rows: Sequence[str]) -> list[list[str]]:
    """Return the rows to run of each table: all of them, or those named.

    Raises:
        ConfigError: no table has a row of that name.
    """
    known = list(dict.fromkeys(row for table in tables for row in table.rows))
    for row in rows:
        if row not in known:
            names = " and ".join(f"'{table.name}'" for table in tables)
            raise ConfigError(f"no row '{row}' in {names}; there are: {', '.join(known)}.")
    return [[row for row in table.rows if not rows or row in rows] for table in tables]
