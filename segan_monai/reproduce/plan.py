# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings of all runs of a table, and the config files and the folder of each run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segan_monai.check.config_files import read_config_file
from segan_monai.check.overlay_keys import keys_with_place, require_places, unread_keys
from segan_monai.errors import ConfigError
from segan_monai.reproduce.active import stage_before
from segan_monai.reproduce.published import BUNDLES, ResultTable

logger = logging.getLogger(__name__)

CONFIG_OF_RUN = {"training": "train.json", "evaluating": "evaluate.json"}


@dataclass(eq=False)
class Plan:
    """Settings shared by all rows of a table.

    Attributes:
        table: the table.
        dataset_dir: folder of the data.
        output_dir: receives one folder per set of overlays and seed, so that rows shared by two tables run once.
        datalist: decathlon JSON; by default the cases are discovered.
        configs: overlays for all rows, merged before those of a row.
        overrides: keys of the bundle's ``train.json`` and their values, for all rows; the row's own settings win.
        train_seconds: train every row for this time; a short run determines the number of epochs. None for the
            bundle's number of epochs.
    """

    table: ResultTable
    dataset_dir: Path
    output_dir: Path
    datalist: Path | None = None
    configs: list[Path] = field(default_factory=list)
    overrides: dict[str, Any] = field(default_factory=dict)
    train_seconds: float | None = None


def config_files_of(plan: Plan, row: str, run_id: str, output_dir: Path) -> list[str]:
    """Return the config files of a run that was started, later ones winning.

    Args:
        plan: the settings shared by all rows.
        row: name of the row.
        run_id: ``training`` or ``evaluating``.
        output_dir: output folder of the run, beside which its own settings lie.
    """
    return with_overlays(plan, run_id, output_dir, [file for file, _ in overlays_of(plan, row, run_id, output_dir)])


def with_overlays(plan: Plan, run_id: str, output_dir: Path, overlays: Sequence[Path]) -> list[str]:
    """Return the config files of a run with these overlays, see ``config_files_of``."""
    return [str(file) for file in (config_of(plan, run_id), *overlays, output_dir.with_suffix(".json"))]


def config_of(plan: Plan, run_id: str) -> Path:
    """Return the bundle's config of a training or an evaluation."""
    return BUNDLES / plan.table.bundle / "configs" / CONFIG_OF_RUN[run_id]


def overlays_of(plan: Plan, row: str, run_id: str, output_dir: Path) -> list[tuple[Path, dict[str, Any] | None]]:
    """Return the overlays of a run, see ``config_files_of`` for the arguments.

    Where the config has no place for some keys of an overlay (see ``keys_with_place``), or nothing in it reads them
    (see ``unread_keys``), the run gets a file with the others instead, beside its folder.

    Returns:
        Files, and the content to be written to such a file; None for an overlay as it is.
    """
    shared = [output_dir.with_name("overrides.json")] if plan.overrides else []
    files = [*plan.configs, *shared, *plan.table.rows[row]]
    contents = [read_config_file(file) for file in files]
    own = config_of(plan, run_id)
    config = read_config_file(own)
    kept = keys_with_place(config, zip(map(str, files), contents, strict=True))
    unread = unread_keys({str(own): config}, dict(zip(map(str, files), kept, strict=True)))
    kept = [{key: value for key, value in content.items() if key not in unread} for content in kept]
    return [
        (file, None) if part == content else (output_dir.with_name(f"{output_dir.name}_overlay_{number}.json"), part)
        for number, (file, content, part) in enumerate(zip(files, contents, kept, strict=True))
    ]


def check_overlays(plan: Plan, row: str) -> None:
    """Check that the keys of all overlays and settings have a place in the training or the evaluation.

    Raises:
        ConfigError: One has none, or an overlay cannot be read.
    """
    files = [config_of(plan, run_id) for run_id in CONFIG_OF_RUN]
    configs = {str(file): read_config_file(file) for file in files}
    contents = {str(file): read_config_file(file) for file in plan.configs}
    of_row = {str(file): read_config_file(file) for file in plan.table.rows[row]}
    require_places(configs, {**contents, "--set": plan.overrides, **of_row})


def check_overrides(plan: Plan) -> None:
    """Check that each setting reaches a row of the table, because a row's own settings win.

    A warning names keys of ``plan.configs`` that reach none, since the other keys of such a file may.

    Raises:
        ConfigError: All rows set a key of ``plan.overrides`` themselves.
    """
    for key, of_rows in rows_that_set(plan, plan.table.rows).items():
        if len(of_rows) == len(plan.table.rows):
            files = ", ".join(sorted(set(of_rows.values())))
            effect = f"{key} has no effect: each row of '{plan.table.name}' sets this key itself"
            if key in plan.overrides:
                raise ConfigError(f"--set {effect}. Omit it, or change the key in the rows' overlays ({files}).")
            logger.warning("--config: %s (%s).", effect, files)


def rows_that_set(plan: Plan, rows: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return, for each setting of all rows, the rows that give this key another value, and the name of the overlay."""
    shared = {key: value for file in plan.configs for key, value in read_config_file(file).items() if key[0] != "_"}
    shared |= plan.overrides
    found: dict[str, dict[str, str]] = {key: {} for key in shared}
    for row in rows:
        own = {
            key: (value, file.name) for file in plan.table.rows[row] for key, value in read_config_file(file).items()
        }
        for key in shared.keys() & own.keys():
            value, name = own[key]
            if value != shared[key]:
                found[key][row] = name
    return found


def chosen_after(plan: Plan, row: str, labels: tuple[int, int] | None) -> int | None:
    """Return the number of labels whose network chooses the cases of a run; None if they are drawn."""
    if labels is None or plan.table.labels is None or row != plan.table.labels.chosen:
        return None
    return stage_before(plan.table.labels, labels[0])


def run_folder(plan: Plan, row: str, seed: int, fold: int | None = None, labels: tuple[int, int] | None = None) -> Path:
    """Return the folder of a run, see ``run_row`` for the arguments."""
    name = f"seed_{seed}" + ("" if fold is None else f"_fold_{fold}")
    if labels is not None:
        name += f"_labels_{labels[0]}_draw_{labels[1]}"
    if (before := chosen_after(plan, row, labels)) is not None:
        name += f"_chosen_after_{before}"
    return row_folder(plan, row) / name


def row_folder(plan: Plan, row: str) -> Path:
    """Return the folder of a row's runs, named after its overlays."""
    return plan.output_dir / ("+".join(file.stem for file in plan.table.rows[row]) or "bundle")
