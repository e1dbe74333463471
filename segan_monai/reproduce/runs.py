# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Run the rows of a published table, each with several seeds, and collect what came out.

A table is data: ``configs/experiments/<table>/table.json`` names a bundle and, for each row, the overlays that make it
and its published figures. Every run is a training and an evaluation by `monai.bundle` in processes of their own, so
peak memory and random state belong to that run alone; finished runs are kept and interrupted ones go on.
"""

from __future__ import annotations

import difflib
import json
import logging
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

import segan_monai
from segan_monai.errors import ConfigError, UserError
from segan_monai.settings import parse_settings

logger = logging.getLogger(__name__)

# In a checkout links to ``configs`` and ``bundles``, in an installed package copies
CONFIGS = (Path(segan_monai.__file__).parent / "configs").resolve()
BUNDLES = (Path(segan_monai.__file__).parent / "bundles").resolve()
EXPERIMENTS = CONFIGS / "experiments"
CALIBRATION_EPOCHS = 10  # enough for a critic that joins late to have its share


class RunFailedError(UserError):
    """A training or an evaluation ended with an error; the message has its last line and its log file."""


@dataclass(frozen=True)
class ResultTable:
    """A published table as rows that can be run.

    Attributes:
        name: folder of the table below ``configs/experiments``.
        title: what is compared.
        source: paper and table.
        data: what the published figures were measured on.
        bundle: folder name of the bundle that is run.
        metrics: metrics of ``summary.json`` to show.
        rows: name to overlay files.
        published: row to metric to region to value.
    """

    name: str
    title: str
    source: str
    data: str
    bundle: str
    metrics: list[str]
    rows: dict[str, list[Path]]
    published: dict[str, dict[str, dict[str, float]]]


@dataclass
class Plan:
    """What all rows of a table are run with.

    Attributes:
        table: the table.
        dataset_dir: folder of the data.
        output_dir: gets a folder for each set of overlays and seed, so that rows which two tables share run once.
        datalist: decathlon JSON, if the cases are not to be discovered.
        configs: overlays for all rows, merged before those of a row.
        overrides: keys of the bundle's ``train.json`` and their values, for all rows; what a row sets itself wins.
        train_seconds: train every row for as long as this, by as many epochs as a short run says; None for the
            bundle's own number of epochs.
    """

    table: ResultTable
    dataset_dir: Path
    output_dir: Path
    datalist: Path | None = None
    configs: list[Path] = field(default_factory=list)
    overrides: dict[str, Any] = field(default_factory=dict)
    train_seconds: float | None = None


def load_tables(name: str, bundle: str | None = None) -> list[ResultTable]:
    """Read a table, or all tables of a paper.

    Args:
        name: of a folder below ``configs/experiments``, or what the names of several begin with, such as ``lsnet``;
            hyphens and underscores are alike.
        bundle: a bundle to run instead of the table's own.

    Returns:
        The tables, in the order of their numbers in the paper.

    Raises:
        ConfigError: there is no such table, bundle or overlay.
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
    overlays = {row: [(folder / file).resolve() for file in rest["overlays"]] for row, rest in content["rows"].items()}
    needed = [BUNDLES / bundle / "configs" / file for file in ("train.json", "evaluate.json")]
    for file in (*needed, *(file for files in overlays.values() for file in files)):
        if not file.is_file():
            raise ConfigError(f"{file} does not exist, but the table '{folder.name}' needs it.")
    return ResultTable(
        name=folder.name,
        title=content["title"],
        source=content["source"],
        data=content["data"],
        bundle=bundle,
        metrics=content.get("metrics", ["dice"]),
        rows=overlays,
        published={row: rest.get("published", {}) for row, rest in content["rows"].items()},
    )


def find_overlay(file: Path) -> Path:
    """Return the overlay file; ``configs/...`` means one of this project's own wherever no such file is below.

    Raises:
        ConfigError: there is no such file.
    """
    for found in (file, CONFIGS.parent / file):
        if found.is_file():
            return found
    known = ", ".join(f"configs/{found.name}" for found in sorted(CONFIGS.glob("*.json")))
    raise ConfigError(f"there is no config {file}. Give a JSON file of yours, or one of {known}.")


def parse_overrides(texts: Iterable[str], table: ResultTable) -> dict[str, Any]:
    """Read ``KEY=VALUE`` settings, values as JSON or Python literals, else as text.

    Raises:
        ConfigError: a text without ``=``, or a key that the bundle's ``train.json`` does not have.
    """
    known = json.loads((BUNDLES / table.bundle / "configs" / "train.json").read_text(encoding="utf-8"))
    overrides = parse_settings(texts)
    for key in overrides:
        if key.split("#")[0] not in known:
            near = difflib.get_close_matches(key, known, n=3)
            raise ConfigError(
                f"unknown key '{key}': train.json of {table.bundle} has no such key."
                + (f" Did you mean {' or '.join(near)}?" if near else "")
            )
    return overrides


def run_row(plan: Plan, row: str, seed: int, fold: int | None = None) -> dict[str, Any]:
    """Train and evaluate one row with one seed, unless that has been done already.

    Args:
        plan: what all rows are run with.
        row: its name.
        seed: of split and initialization.
        fold: which part of the split is kept out; None for that of the bundle's ``train.json``.

    Returns:
        ``row``, ``seed``, ``fold``, ``epochs``, ``train_seconds``, ``peak_memory_mib``, ``parameters`` (name of network
        to number), ``training_cases`` and ``regions``, the regions of ``summary.json``; ``gflop_per_slice`` if it was
        counted.

    Raises:
        RunFailedError: the training or the evaluation failed.
        ConfigError: the folder of this run holds one with other settings.
    """
    folder = _folder(plan, row) / (f"seed_{seed}" if fold is None else f"seed_{seed}_fold_{fold}")
    settings = {
        "dataset_dir": str(plan.dataset_dir),
        **({} if plan.datalist is None else {"datalist": str(plan.datalist)}),
        "seed": seed,
        **({} if fold is None else {"fold": fold}),
    }
    if plan.train_seconds is not None:
        settings["epochs"] = settings["val_interval"] = _epochs_for(plan, row, settings)
    overlays = [recorded_name(file) for file in (*plan.configs, *plan.table.rows[row])]
    _claim(folder, {"bundle": plan.table.bundle, "overlays": overlays, "settings": {**plan.overrides, **settings}})
    training, evaluation = folder / "training", folder / "evaluation"
    if not (training / "model.pt").is_file() or not (training / "trained.txt").is_file():
        resume = (training / "last.pt").is_file()
        _run(plan, row, "training", training, {**settings, "resume": resume, "ckpt_dir": str(training)})
        (training / "trained.txt").touch()
    if not (evaluation / "summary.json").is_file():
        _run(plan, row, "evaluating", evaluation, {**settings, "ckpt_dir": str(training)})
    results = {**read_training(training), **_read_evaluation(training, evaluation)}
    return {"row": row, "seed": seed, **({} if fold is None else {"fold": fold}), **results}


def read_training(folder: Path) -> dict[str, Any]:
    """Read epochs, seconds, peak memory and numbers of parameters from a run's ``history.csv``."""
    history = pd.read_csv(folder / "history.csv")
    values = history.groupby("name")["value"].max()
    prefix = "parameters_"
    return {
        "epochs": int(history["epoch"].max()),
        "train_seconds": float(history.groupby("epoch")["seconds"].max().sum()),
        "peak_memory_mib": float(values["peak_memory_mib"]),
        "parameters": {str(k).removeprefix(prefix): int(v) for k, v in values.items() if str(k).startswith(prefix)},
    }


def _read_evaluation(training: Path, evaluation: Path) -> dict[str, Any]:
    split = json.loads((training / "split.json").read_text(encoding="utf-8"))
    summary = json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))
    cost = {key: summary[key] for key in ("gflop_per_slice",) if key in summary}
    return {"training_cases": len(split["training"]), "regions": summary["regions"], **cost}


def _epochs_for(plan: Plan, row: str, settings: Mapping[str, Any]) -> int:
    """As many epochs as fit into the given seconds: measured once a row, by a short run with the same schedule."""
    folder = _folder(plan, row)
    file = folder / "epochs.json"
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["train_seconds"] == plan.train_seconds:
            return int(found["epochs"])
    short = {"epochs": CALIBRATION_EPOCHS, "val_interval": CALIBRATION_EPOCHS, "ckpt_dir": str(folder / "calibration")}
    _run(plan, row, "training", folder / "calibration", {**settings, **short})
    seconds = pd.read_csv(folder / "calibration" / "history.csv").groupby("epoch")["seconds"].max().loc[1:]
    seconds.loc[1] = seconds.loc[2]  # the first one also warms up
    an_epoch = float(seconds.mean())
    epochs = max(1, round((plan.train_seconds or 0) / an_epoch))
    _write_json(file, {"train_seconds": plan.train_seconds, "seconds_an_epoch": an_epoch, "epochs": epochs})
    return epochs


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write down what the run of this folder is, or refuse the folder of another one."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "settings.json"
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        differing = [key for key in settings["settings"] if found["settings"].get(key) != settings["settings"][key]]
        if found != settings:
            raise ConfigError(
                f"{folder} holds a run with other settings ({', '.join(differing) or 'bundle, overlays or fewer keys'} "
                "differ). Choose another --output-dir, or remove that folder to run it again."
            )
    _write_json(file, settings)


def _run(plan: Plan, row: str, run_id: str, output_dir: Path, settings: Mapping[str, Any]) -> None:
    """Run a bundle in a process of its own; what it prints goes to a file beside its folder.

    Later configs win: the bundle's, those for all rows, what makes the row, what makes this run.
    """
    config = {"training": "train.json", "evaluating": "evaluate.json"}[run_id]
    output_dir.mkdir(parents=True, exist_ok=True)
    configs = [BUNDLES / plan.table.bundle / "configs" / config, *plan.configs]
    if plan.overrides:
        configs.append(_write_json(output_dir.with_name("overrides.json"), plan.overrides))
    own = {**settings, "output_dir": str(output_dir)}
    configs += [*plan.table.rows[row], _write_json(output_dir.with_suffix(".json"), own)]
    files = [str(file) for file in configs]
    logger.info("%s, seed %s: %s", row, settings["seed"], run_id if run_id == "evaluating" else output_dir.stem)
    log = output_dir.with_suffix(".log")
    with log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(files)]
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise RunFailedError(
            f"row '{row}', seed {settings['seed']}: {run_id} ended with status {done.returncode}: "
            f"{lines[-1] if lines else 'it printed nothing'}. See {log}; the same command goes on where it stopped."
        )


def recorded_name(file: Path) -> str:
    """Name of an overlay that does not depend on where the package is installed."""
    return f"configs/{file.relative_to(CONFIGS).as_posix()}" if file.is_relative_to(CONFIGS) else str(file)


def _write_json(file: Path, content: Mapping[str, Any]) -> Path:
    file.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    return file


def _folder(plan: Plan, row: str) -> Path:
    """Folder of a row's runs, named after its overlays."""
    return plan.output_dir / ("+".join(file.stem for file in plan.table.rows[row]) or "bundle")


def check_rows(tables: Sequence[ResultTable], rows: Sequence[str]) -> list[list[str]]:
    """Return the rows to run of each table: all of them, or those named.

    Raises:
        ConfigError: a name that no table has.
    """
    known = list(dict.fromkeys(row for table in tables for row in table.rows))
    for row in rows:
        if row not in known:
            names = " and ".join(f"'{table.name}'" for table in tables)
            raise ConfigError(f"no row '{row}' in {names}; there are: {', '.join(known)}.")
    return [[row for row in table.rows if not rows or row in rows] for table in tables]
