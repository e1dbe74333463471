# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The quality estimate on held-out cases, clean and corrupted, whose Dice is known."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import nibabel
import numpy as np
import pandas as pd
import torch
import typer
from monai.bundle import ConfigParser
from monai.transforms import Transform

import segan_monai
from benchmarks.corruptions import GEOMETRY, INTENSITIES, cut_to_grid
from segan_monai.data import find_cases
from segan_monai.files import whole_file, write_text
from segan_monai.json_files import read_json_object, write_json
from segan_monai.quality import QualityModel, fit_quality, read_evaluations
from segan_monai.quality.file import require_settings
from segan_monai.quality.measures import HeldOut
from segan_monai.quality.table import SIGNALS
from segan_monai.reproduce.table import markdown_table
from segan_monai.transforms import LoadCased

CLEAN, OTHER = "clean", "another_organ"
COLUMNS = ["case", "fold", "corruption", "region", "dice", "expected_dice", "lower_bound", "flag"]
"""Columns of ``quality.csv`` before those of the signals."""
WORSE = 0.1
"""Loss of Dice from which a corrupted case counts as worse than the same case clean."""
LOW_BOUND = 0.5
_MARK = "__"


@dataclass(frozen=True)
class Fold:
    """A fold of ``segan-monai folds``.

    Attributes:
        number: of the held-out fold.
        training: folder with ``model.pt``.
        evaluation: folder with ``metrics.csv`` and ``signals.json`` of the held-out cases.
    """

    number: int
    training: Path
    evaluation: Path


def find_folds(folds: Path, row: str | None, seed: int) -> list[Fold]:
    """Return the folds of a configuration.

    Args:
        folds: output folder of ``segan-monai folds``.
        row: name of the configuration's folder in it; None for the only one.
        seed: seed of the runs.

    Raises:
        BadParameter: The folder has several configurations, or none, or fewer than two folds of this one.
    """
    found: dict[str, list[Fold]] = {}
    for file in folds.resolve().glob(f"*/seed_{seed}_fold_*/*/{SIGNALS}"):
        run = file.parent.parent
        number = re.fullmatch(r"seed_\d+_fold_(\d+)", run.name)
        if number is not None and file.parent.name in ("out_of_fold", "evaluation"):
            found.setdefault(run.parent.name, []).append(Fold(int(number[1]), run / "training", file.parent))
    if not found or (row is None and len(found) > 1) or (row is not None and row not in found):
        raise typer.BadParameter(
            f"{folds} has evaluated folds of seed {seed} of {', '.join(sorted(found)) or 'no configuration'}; expected "
            f"{'those of one, or --row NAME' if row is None else row}. Run segan-monai folds first."
        )
    of_row = sorted(found[row or next(iter(found))], key=lambda fold: fold.number)
    if len(of_row) < 2:
        raise typer.BadParameter(f"{folds} has one fold; expected two or more: each is estimated by the others.")
    return of_row


def cases_of(config: Mapping[str, Any], dataset_dir: Path) -> tuple[list[dict[str, Any]], Transform]:
    """Return the cases of a data set as a config finds them, and the transform that loads one."""
    segan_monai.register_components()
    parser = ConfigParser({**config, "dataset_dir": str(dataset_dir)})
    return list(parser.get_parsed_content("cases")), parser.get_parsed_content("preprocessing").transforms[0]


def write_corrupted(
    cases: Sequence[Mapping[str, Any]], load: Transform, others: Sequence[Mapping[str, Any]], folder: Path
) -> Path:
    """Write all corruptions of cases as NIfTI files, and return the datalist that names them.

    A corruption that leaves an image as it is, such as missing slices of a single slice, is omitted.

    Args:
        cases: cases with labels.
        load: loads image and label map of a case.
        others: cases of other images, one of which each case gets in turn; empty for none.
        folder: receives the files.
    """
    load_other = LoadCased(("image",))
    entries = []

    def add(case: Mapping[str, Any], name: str, image: Any, label: Any) -> None:
        if torch.equal(image, loaded["image"].as_tensor()):
            return
        entry = {key: value for key, value in case.items() if key not in ("section", "channels")}
        entry["case"] = f"{case['case']}{_MARK}{name}"
        files = [folder / f"{entry['case']}_{number}.nii.gz" for number in range(len(image))]
        for file, channel in zip(files, image, strict=True):
            _save(file, np.asarray(channel, np.float32), affine)
        entry["image"] = [str(file) for file in files] if len(files) > 1 else str(files[0])
        entry["label"] = str(folder / f"{entry['case']}_label.nii.gz")
        _save(Path(entry["label"]), np.asarray(label[0], np.int32), affine)
        entries.append(entry)

    for index, case in enumerate(cases):
        loaded = load(case)
        affine = loaded["image"].affine.numpy()
        image, label = (loaded[key].as_tensor() for key in ("image", "label"))
        seed = zlib.crc32(case["case"].encode())
        for corrupt in INTENSITIES:
            add(case, corrupt.__name__, corrupt(image, seed), label)
        for corrupt in GEOMETRY:
            add(case, corrupt.__name__, corrupt(image, seed), corrupt(label, seed))
        if others:
            other = load_other(others[index % len(others)])["image"].as_tensor()
            add(case, OTHER, cut_to_grid(other, image, seed), label * 0)
    file = folder / "datalist.json"
    write_json(file, {"training": entries})
    return file


def _save(file: Path, values: np.ndarray, affine: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(values, affine), file)


def evaluate(fold: Fold, config: Mapping[str, Any], dataset_dir: Path, datalist: Path, output: Path) -> None:
    """Evaluate the network of a fold on other images, under the settings of its evaluation.

    Args:
        fold: the fold.
        config: config of its evaluation, from ``run.json``.
        dataset_dir: folder of the data.
        datalist: the images.
        output: receives the results; its log and config lie beside it.

    Raises:
        RuntimeError: The evaluation failed. Where single cases failed, the others count, and a line names the log.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / SIGNALS).unlink(missing_ok=True)
    places = {"dataset_dir": dataset_dir, "datalist": datalist, "ckpt_dir": fold.training, "output_dir": output}
    other = {"subset": "all", "save_probabilities": False}
    changed = {**{key: str(place.resolve()) for key, place in places.items()}, **other}
    file, log = output.with_suffix(".json"), output.with_suffix(".log")
    write_json(file, {**config, **{key: value for key, value in changed.items() if key in config}})
    command = [sys.executable, "-m", "monai.bundle", "run", "evaluating", "--config_file", str(file)]
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if done.returncode and not (output / SIGNALS).is_file():
        raise RuntimeError(f"the evaluation of fold {fold.number} ended with status {done.returncode}. See {log}.")
    if done.returncode:
        typer.echo(f"fold {fold.number}: some cases failed and are not in the table. See {log}.", err=True)


def estimates(evaluation: Path, model: QualityModel, fold: int, clean: bool) -> list[dict[str, Any]]:
    """Return true and estimated Dice of all cases and regions of an evaluation, with their signals.

    Args:
        evaluation: folder with ``metrics.csv`` and ``signals.json``.
        model: the estimate, of other cases.
        fold: number of the fold.
        clean: whether the cases are uncorrupted; otherwise their names say how.
    """
    signals = read_json_object(evaluation / SIGNALS)["cases"]
    metrics = pd.read_csv(evaluation / "metrics.csv", dtype={"case": str, "region": str}, keep_default_na=False)
    metrics["dice"] = pd.to_numeric(metrics["dice"], errors="coerce")
    dice = metrics.set_index(["case", "region"])["dice"]
    rows = []
    for name, of_case in signals.items():
        case, corruption = (name, CLEAN) if clean else name.rsplit(_MARK, 1)
        for region, found in model.estimate(of_case["image"], of_case["regions"]).items():
            true = 0.0 if corruption == OTHER else float(dice.get((name, region), np.nan))
            row = {"case": case, "fold": fold, "corruption": corruption, "region": region, "dice": true}
            rows.append({**row, **found, **of_case["regions"][region]})
    return rows


def summary(table: pd.DataFrame) -> str:
    """Return tables of all regions as Markdown.

    Args:
        table: ``COLUMNS``, then one column per signal; flags are text, empty for none.
    """
    table = table.dropna(subset=["dice"])
    table = table.assign(flagged=table["flag"] != "", covered=table["dice"] >= table["lower_bound"])
    texts = [_of_region(str(region), rows) for region, rows in table.groupby("region", sort=False)]
    found = [{"": str(region), **_detected(rows)} for region, rows in table.groupby("region", sort=False)]
    if len(found) > 1:
        found.append({"": "all regions", **_detected(table)})
    return "\n\n".join(
        [*texts, f"### Worse by a Dice of {WORSE:g} or more than the same case clean", markdown_table(found)]
    )


def _of_region(region: str, table: pd.DataFrame) -> str:
    clean, others = table[table["corruption"] == CLEAN], table[table["corruption"] != CLEAN]
    parts = {"clean": clean, "clean, those corrupted below": clean[clean["case"].isin(others["case"])]}
    parts |= {str(name).replace("_", " "): rows for name, rows in others.groupby("corruption", sort=False)}
    lines = [
        {
            "": name,
            "cases": str(len(rows)),
            "true Dice": _number(rows["dice"].mean()),
            "expected": _number(rows["expected_dice"].mean()),
            "lower bound": _number(rows["lower_bound"].mean()),
            "coverage": _number(rows["covered"].mean()),
            "flagged": _number(rows["flagged"].mean()),
        }
        for name, rows in parts.items()
    ]
    measured = {name: _held_out(rows) for name, rows in (("clean", clean), ("corrupted", others)) if len(rows)}
    sums = [
        {"": name, **{key: _number(value) for key, value in found.measures().items()}}
        for name, found in measured.items()
    ]
    for line, found in zip(sums, measured.values(), strict=True):
        line["cases"] = str(len(found.dice))
    for name, alone in measured["clean"].single_signals().items():
        sums.append(
            {**dict.fromkeys(sums[0], ""), "": f"clean, {name} alone", **{k: _number(v) for k, v in alone.items()}}
        )
    return "\n\n".join([f"### {region}", markdown_table(lines), markdown_table(sums)])


def _held_out(rows: pd.DataFrame) -> HeldOut:
    signals = {name: rows[name].to_numpy() for name in rows if name not in (*COLUMNS, "flagged", "covered")}
    columns = (rows[name].to_numpy() for name in ("dice", "expected_dice", "lower_bound", "flagged"))
    return HeldOut(*columns, signals)


def _detected(table: pd.DataFrame) -> dict[str, str]:
    """Return how many corrupted cases are much worse, and the shares of these that the estimate tells."""
    key = ["case", "fold", "region"]
    clean, others = table[table["corruption"] == CLEAN], table[table["corruption"] != CLEAN]
    before = others[key].merge(clean[[*key, "dice"]], on=key, how="left")["dice"].to_numpy()
    worse = others[others["dice"].to_numpy() <= before - WORSE + 1e-9]
    found = {"corrupted": str(len(others)), "worse": str(len(worse))}
    for name, rows in (("worse", worse), ("clean", clean)):
        either = rows["flagged"] | (rows["lower_bound"] < LOW_BOUND)
        found[f"{name}: flagged or bound below {LOW_BOUND:g}"] = _number(either.mean())
        found[f"{name}: flagged"] = _number(rows["flagged"].mean())
    return found


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}".replace("0.", ".", 1)


def quality(
    folds: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="output folder of segan-monai folds")],
    dataset_dir: Annotated[Path, typer.Option(exists=True, help="the labelled images of these folds")],
    output_dir: Annotated[Path, typer.Option(help="receives quality.md and quality.csv")] = Path("quality_benchmark"),
    cases_per_fold: Annotated[int | None, typer.Option(min=1, help="corrupt only the first N cases per fold")] = None,
    other_images: Annotated[
        Path | None, typer.Option(exists=True, help="images of another organ, a folder or one file; their Dice is 0")
    ] = None,
    row: Annotated[str | None, typer.Option(help="folder of the configuration in FOLDS, if there are several")] = None,
    seed: Annotated[int, typer.Option(help="seed of the folds")] = 0,
) -> None:
    """Compare estimated and true Dice of held-out cases, clean and corrupted, by the network of their fold.

    The estimate of each fold is fitted to the out-of-fold cases of the other folds. Clean cases are not evaluated
    again. Strengths of the corruptions are in benchmarks/corruptions.py.
    """
    others = find_cases(other_images) if other_images else []
    rows = []
    of_row = find_folds(folds, row, seed)
    for fold in of_row:
        settings, fitted = read_evaluations([other.evaluation for other in of_row if other is not fold])
        model = fit_quality(fitted)
        rows += estimates(fold.evaluation, model, fold.number, clean=True)
        config = read_json_object(fold.evaluation / "run.json")["config"]
        held_out = read_json_object(fold.evaluation / SIGNALS)["cases"]
        cases, load = cases_of(config, dataset_dir)
        chosen = [case for case in cases if case["case"] in held_out][:cases_per_fold]
        typer.echo(f"fold {fold.number}: {len(chosen)} of {len(held_out)} cases, estimate of {len(fitted)} others")
        output = output_dir / f"fold_{fold.number}"
        with tempfile.TemporaryDirectory() as place:
            datalist = write_corrupted(chosen, load, others, Path(place))
            evaluate(fold, config, dataset_dir, datalist, output)
        found = read_json_object(output / SIGNALS)["settings"]
        require_settings(found, settings, str(output / SIGNALS), "Run segan-monai folds again with this version.")
        rows += estimates(output, model, fold.number, clean=False)
    table = pd.DataFrame(rows)
    with whole_file(output_dir / "quality.csv") as file:
        table.to_csv(file, index=False)
    text = summary(table)
    write_text(output_dir / "quality.md", text + "\n")
    typer.echo(text)
    typer.echo(f"written: {output_dir / 'quality.md'}, {output_dir / 'quality.csv'}")
