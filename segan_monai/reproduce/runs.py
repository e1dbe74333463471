# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs the rows of a published table, each with several seeds, and collects the results.

Every run is a training and an evaluation by ``monai.bundle``, each in a separate process, so that peak memory and
random state belong to that run alone. Finished runs are kept, and interrupted ones are resumed. An evaluation that
could not evaluate all of its cases is not finished.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from segan_monai.data import read_split
from segan_monai.errors import ConfigError, UserError
from segan_monai.json_files import read_json_object, write_json
from segan_monai.reproduce.active import POOL, choose_cases
from segan_monai.reproduce.labels import regions_in_all, train_domains
from segan_monai.reproduce.overlays import changed_keys, contents_of
from segan_monai.reproduce.plan import (
    CONFIG_OF_RUN,
    Plan,
    check_overlays,
    chosen_after,
    config_files_of,
    config_of,
    overlays_of,
    row_folder,
    run_folder,
    with_overlays,
)
from segan_monai.reproduce.published import DRAW_KEY, NUMBER_KEY, is_packaged, recorded_name
from segan_monai.reproduce.results import REPEAT, is_evaluated, read_evaluation, read_training
from segan_monai.run.lock import output_folder
from segan_monai.typed import config_values

logger = logging.getLogger(__name__)

CALIBRATION_EPOCHS = 10  # enough to include the epochs after a late start of the critic
MEASURED = ("epochs", "val_interval")
"""Settings of a run that follow from the time that it trains for."""
EVALUATIONS = ("evaluation", "out_of_fold", POOL)
"""Folders of a run with results of its weights, those of a cross-validation too."""
OF_ONE_RUN = ("seed", "fold", NUMBER_KEY, DRAW_KEY)
"""Settings that differ among the runs of a row."""


class RunFailedError(UserError):
    """Training or evaluation that ended with an error; the message has its last line and its log file."""


def run_row(
    plan: Plan, row: str, seed: int, fold: int | None = None, labels: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Train and evaluate one row with one seed, unless the results of all cases exist.

    Args:
        plan: the settings shared by all rows.
        row: name of the row.
        seed: seed of split and initialization.
        fold: the held-out part of the split; None for that of the bundle's ``train.json``.
        labels: number of labelled training cases and the seed that chooses them; None for all.

    Returns:
        ``row``, ``seed``, ``fold``, ``labels`` and ``draw`` (if given), ``epochs``, ``train_seconds``,
        ``peak_memory_mib``, ``parameters`` (name of network to number), ``training_cases`` and ``unlabeled_cases``
        (numbers), ``regions`` (those of ``summary.json``), ``dice_of_cases`` (case to its mean Dice over the regions)
        and ``patient_of_cases`` (case to its patient, if their names differ); ``gflop_per_slice`` if it was counted;
        with domains, those of ``read_domains``.

    Raises:
        RunFailedError: the training or the evaluation failed.
        ConfigError: the folder of this run holds one with other settings.
    """
    folder, settings = train_row(plan, row, seed, fold, labels)
    training, evaluation = folder / "training", folder / "evaluation"
    if not is_evaluated(evaluation):
        evaluate_row(plan, row, training, evaluation, settings)
    domains = train_domains(config_files_of(plan, row, "training", training))
    results = {**read_training(training), **read_evaluation(training, evaluation, domains)}
    drawn = {} if labels is None else {"labels": labels[0], "draw": labels[1]}
    return {"row": row, "seed": seed, **({} if fold is None else {"fold": fold}), **drawn, **results}


def train_row(
    plan: Plan, row: str, seed: int, fold: int | None = None, labels: tuple[int, int] | None = None
) -> tuple[Path, dict[str, Any]]:
    """Train one row with one seed, unless its weights exist.

    Args:
        plan: the settings shared by all rows.
        row: name of the row.
        seed: seed of split and initialization.
        fold: see ``run_row``.
        labels: see ``run_row``.

    Returns:
        The folder of the run, whose subfolder ``training`` has the weights, and the settings for its evaluation.

    Raises:
        RunFailedError: the training failed.
        ConfigError: the folder of this run holds one with other settings.
    """
    check_overlays(plan, row)
    chosen = {} if labels is None else {NUMBER_KEY: _labelled(plan, row, seed, fold, labels), DRAW_KEY: labels[1]}
    folder = run_folder(plan, row, seed, fold, labels)
    settings = {
        "dataset_dir": str(plan.dataset_dir),
        **({} if plan.datalist is None else {"datalist": str(plan.datalist)}),
        "seed": seed,
        **({} if fold is None else {"fold": fold}),
        **chosen,
    }
    if plan.train_seconds is not None:
        _refuse_others(folder, _record(plan, row, settings), MEASURED)  # nothing is measured for a run that is refused
        settings["epochs"] = settings["val_interval"] = _epochs_for(plan, row, settings)
    _claim(folder, _record(plan, row, settings))
    training = folder / "training"
    if not (training / "model.pt").is_file() or not (training / "trained.txt").is_file():
        resume = (training / "last.pt").is_file()
        for evaluation in EVALUATIONS:  # results of other weights
            (folder / evaluation / "summary.json").unlink(missing_ok=True)
        _run(plan, row, "training", training, {**settings, "resume": resume, "ckpt_dir": str(training)})
        (training / "trained.txt").touch()
    return folder, settings


def _labelled(plan: Plan, row: str, seed: int, fold: int | None, labels: tuple[int, int]) -> int | list[str]:
    """Return the number of labelled cases, or their names where the network of fewer labels chooses them.

    The names of a run that was started are those in its record.
    """
    before = chosen_after(plan, row, labels)
    if before is None:
        return labels[0]
    record = run_folder(plan, row, seed, fold, labels) / "settings.json"
    if record.is_file():
        recorded = read_json_object(record, REPEAT)["settings"].get(NUMBER_KEY)
        if isinstance(recorded, list):
            return recorded
    folder, settings = train_row(plan, row, seed, fold, (before, labels[1]))
    if not is_evaluated(folder / POOL):
        evaluate_row(plan, row, folder / "training", folder / POOL, {**settings, "subset": "unlabeled"})
    names = read_split(folder / "training" / "split.json", REPEAT)["training"]
    always = regions_in_all(config_files_of(plan, row, "evaluating", folder / POOL), names)
    return choose_cases(folder / "training", folder / POOL, labels[0], always)


def evaluate_row(plan: Plan, row: str, training: Path, evaluation: Path, settings: Mapping[str, Any]) -> None:
    """Evaluate the weights of a run.

    Args:
        plan: the settings shared by all rows.
        row: name of the row.
        training: folder of the weights.
        evaluation: receives the results.
        settings: what ``train_row`` returned, and other keys of ``evaluate.json``.

    Raises:
        RunFailedError: the evaluation failed.
    """
    _run(plan, row, "evaluating", evaluation, {**settings, "ckpt_dir": str(training)})


def _epochs_for(plan: Plan, row: str, settings: Mapping[str, Any]) -> int:
    """Return the number of epochs that fit into the given time, measured once per row and settings by a short run.

    ``epochs.json`` has the last measurement, and as ``others`` those with other times or settings, because runs that
    were started with them are resumed with them.
    """
    folder = row_folder(plan, row)
    file = folder / "epochs.json"
    record = _without(_record(plan, row, settings), (*OF_ONE_RUN, *MEASURED))
    known: list[dict[str, Any]] = []
    if file.is_file():
        last = read_json_object(file, REPEAT)
        known = [*last.pop("others", ()), last]
    for found in known:
        if found["train_seconds"] == plan.train_seconds and _is_measured_with(found, record, folder):
            return int(found["epochs"])
    short = {"epochs": CALIBRATION_EPOCHS, "val_interval": CALIBRATION_EPOCHS, "ckpt_dir": str(folder / "calibration")}
    _run(plan, row, "training", folder / "calibration", {**settings, **short})
    seconds = pd.read_csv(folder / "calibration" / "history.csv").groupby("epoch")["seconds"].max().loc[1:]
    seconds.loc[1] = seconds.loc[2]  # the first epoch includes warm-up
    an_epoch = float(seconds.mean())
    epochs = max(1, round((plan.train_seconds or 0) / an_epoch))
    measured = {"train_seconds": plan.train_seconds, "seconds_an_epoch": an_epoch, "epochs": epochs, "record": record}
    write_json(file, {**measured, **({"others": known} if known else {})})
    return epochs


def _is_measured_with(found: Mapping[str, Any], record: Mapping[str, Any], folder: Path) -> bool:
    """Return whether epochs were measured with the settings of a record.

    Earlier versions did not record these settings. They are then those of the runs that were started with these epochs.
    """
    if "record" in found:
        return bool(found["record"] == record)
    of_runs = [read_json_object(file, REPEAT) for file in folder.glob("*/settings.json")]
    return bool(of_runs) and all(
        run["settings"].get("epochs") == found["epochs"] and _without(run, (*OF_ONE_RUN, *MEASURED)) == record
        for run in of_runs
    )


def _without(record: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Return the record of a run without some keys of its settings."""
    return {**record, "settings": {key: value for key, value in record["settings"].items() if key not in keys}}


def _record(plan: Plan, row: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides whether the results of a run may be kept: with the content of the user's own files.

    That of this package's files is left out, so that a new version keeps the results of an earlier one.
    """
    overlays = [*plan.configs, *plan.table.rows[row]]
    of_bundle = [config_of(plan, run_id) for run_id in CONFIG_OF_RUN]
    own = {recorded_name(file): file for file in (*overlays, *of_bundle) if not is_packaged(file)}
    return {
        "bundle": plan.table.bundle,
        "overlays": [recorded_name(file) for file in overlays],
        "contents": contents_of(own),
        "settings": {**plan.overrides, **settings},
    }


def _claim(folder: Path, record: dict[str, Any]) -> None:
    """Record the settings of the run in its folder, or refuse the folder of a run with other settings."""
    _refuse_others(folder, record)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "settings.json"
    if not file.is_file():
        write_json(file, record)


def _refuse_others(folder: Path, record: dict[str, Any], but: Collection[str] = ()) -> None:
    """Refuse the folder of a run with other settings, of which some may differ."""
    file = folder / "settings.json"
    if file.is_file():
        found = read_json_object(file, REPEAT)
        found, record = _without(found, but), _without(record, but)
        found["overlays"] = [recorded_name(Path(name)) for name in found["overlays"]]  # absolute in earlier versions
        complete = "contents" in found  # earlier versions did not record it, and what they used is not known
        if not complete:
            record = {key: value for key, value in record.items() if key != "contents"}
        settings = record["settings"]
        differing = [key for key in settings if found["settings"].get(key) != settings[key]]
        if complete:
            differing += changed_keys(found["contents"], record["contents"])
        if found != record:
            raise ConfigError(
                f"{folder} holds a run with other settings ({', '.join(differing) or 'bundle, overlays or fewer keys'} "
                "differ). Choose another --output-dir, or remove that folder to run it again."
            )


def _run(plan: Plan, row: str, run_id: str, output_dir: Path, settings: Mapping[str, Any]) -> None:
    """Run a bundle in a separate process; its output goes to a log file beside its folder.

    Later configs win, in this order: the bundle's, those for all rows, those of the row, those of this run.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with output_folder(output_dir.parent):
        with output_folder(output_dir):  # a run whose parent was killed may be active
            pass
        _run_in(plan, row, run_id, output_dir, settings)


def _run_in(plan: Plan, row: str, run_id: str, output_dir: Path, settings: Mapping[str, Any]) -> None:
    """Run a bundle in a folder that no other process uses."""
    if plan.overrides:
        write_json(output_dir.with_name("overrides.json"), config_values(plan.overrides))
    write_json(output_dir.with_suffix(".json"), config_values({**settings, "output_dir": str(output_dir)}))
    overlays = overlays_of(plan, row, run_id, output_dir)
    for file, content in overlays:
        if content is not None:
            write_json(file, content)
    files = with_overlays(plan, run_id, output_dir, [file for file, _ in overlays])
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
