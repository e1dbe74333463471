# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai reproduce``: reruns the experiments of a published table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from segan_monai.errors import ConfigError


def reproduce(
    table: Annotated[
        str, typer.Argument(help="segan-vs-unet, lsnet-methods, ... (see docs/reproduce.md), or a prefix such as lsnet")
    ],
    dataset_dir: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of the data.")],
    output_dir: Annotated[
        Path, typer.Option(file_okay=False, help="Folder that receives TABLE.md, TABLE.csv and all runs.")
    ],
    datalist: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Decathlon JSON that lists the cases; default: search DATASET_DIR."
        ),
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="Bundle to use instead of the table's own.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Run only this row; may be repeated.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of split and initialization, such as 0,1,2.")] = "0,1,2",
    folds: Annotated[
        str | None, typer.Option(help="Folds to hold out in turn for cross-validation, such as 0,1,2,3,4.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Numbers of labelled cases, such as 4,8; for semi-supervised.")
    ] = None,
    draws: Annotated[
        str | None, typer.Option(help="Seeds that choose the labelled cases, such as 0,1,2; for semi-supervised.")
    ] = None,
    train_seconds: Annotated[
        float | None, typer.Option(min=1, help="Training time per row, instead of the bundle's epochs.")
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(help="Overlay for all rows, such as configs/cpu.json."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Key of train.json, for all rows that do not set it."),
    ] = None,
) -> None:
    """Train and evaluate the rows of a published table, and print our results beside the published figures.

    Finished runs are kept, so an interrupted command resumes where it stopped.

    Example: segan-monai reproduce segan-components --dataset-dir Task04_Hippocampus --output-dir out
    --bundle hippocampus_mri_segan_segmentation --config configs/cpu.json --train-seconds 150
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from segan_monai.bundles_by_name import find_overlay
    from segan_monai.places import require_results_outside
    from segan_monai.reproduce import (
        Plan,
        RunFailedError,
        check_rows,
        draw_curve,
        format_csv,
        format_markdown,
        load_tables,
        parse_overrides,
        run_row,
        with_labels,
    )
    from segan_monai.run.lock import output_folder

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    few = [None if text is None else parse_numbers(text, name) for text, name in ((labels, "labels"), (draws, "draws"))]
    tables = [with_labels(found, *few) for found in load_tables(table, bundle)]
    overlays = [find_overlay(file) for file in config or []]
    numbers = parse_numbers(seeds, "seeds")
    parts: list[int | None] = [*parse_numbers(folds, "folds")] if folds else [None]
    failed = False
    require_results_outside(output_dir, dataset_dir, datalist)
    with output_folder(output_dir):
        for chosen, names in zip(tables, check_rows(tables, row or []), strict=True):
            overrides = parse_overrides(settings or [], chosen)
            plan = Plan(chosen, dataset_dir, output_dir, datalist, overlays, overrides, train_seconds)
            markdown, csv, curve = (output_dir / f"{chosen.name}.{kind}" for kind in ("md", "csv", "svg"))
            runs: list[dict[str, Any]] = []
            errors: dict[str, str] = {}
            todo = [
                (name, seed, fold, drawn)
                for name in names
                for seed in numbers
                for fold in parts
                for drawn in (chosen.labels.of_row(name) if chosen.labels else [None])
            ]
            with logging_redirect_tqdm(), tqdm(todo, desc=chosen.name, unit="run", disable=None) as bar:
                for name, seed, fold, drawn in bar:
                    bar.set_postfix_str(
                        f"{name}, seed {seed}"
                        + ("" if fold is None else f", fold {fold}")
                        + ("" if drawn is None else f", {drawn[0]} labelled, draw {drawn[1]}")
                    )
                    try:
                        runs.append(run_row(plan, name, seed, fold, drawn))
                    except RunFailedError as error:
                        errors[name] = f"{errors[name]} {error}" if name in errors else str(error)
                        typer.echo(f"segan-monai: error: {error}", err=True)
                    if runs:
                        markdown.write_text(format_markdown(plan, runs, errors), encoding="utf-8")
                        csv.write_text(format_csv(runs), encoding="utf-8")
                        if chosen.labels:
                            curve.write_text(draw_curve(chosen, runs), encoding="utf-8")
            if runs:
                typer.echo(format_markdown(plan, runs, errors))
                typer.echo(format_csv(runs))
                typer.echo(f"written: {markdown}, {csv}" + (f", {curve}" if chosen.labels else ""))
            failed = failed or bool(errors)
    if failed:
        raise typer.Exit(1)


def parse_numbers(text: str, what: str) -> list[int]:
    """Parse numbers such as ``0,1,2``.

    Args:
        text: distinct integers, separated by commas.
        what: name of the numbers, for the error message.

    Raises:
        ConfigError: The text has another form.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise ConfigError(f"cannot parse the {what} '{text}'; expected distinct whole numbers, such as 0,1,2.")
    return [int(part) for part in parts]
